from __future__ import annotations

import random

import torch
from torch import nn

from sc_layers.integrations.pairs import add_pair_loss, random_state, replayed
from sc_layers.losses import PerceptualSimplicityLoss, perceptual_simplicity_loss
from tests.tolerances import SAME_FORMULA

CPU = torch.device("cpu")


def test_replaying_repeats_the_numbers_and_then_goes_on() -> None:
    state = random_state(CPU)
    first = torch.rand(3), random.random()
    with replayed(state, CPU):
        again = torch.rand(3), random.random()
    following = torch.rand(3), random.random()
    assert torch.equal(first[0], again[0])
    assert first[1] == again[1]
    assert not torch.equal(first[0], following[0])
    assert first[1] != following[1]


def test_one_backward_gives_the_gradients_of_the_sum_of_both_losses() -> None:
    torch.manual_seed(0)
    generator = nn.Linear(3, 4).double()
    recognizer = nn.Linear(4, 3).double()
    settings = PerceptualSimplicityLoss(weight=0.7, eps=2.0)
    codes = torch.randn(5, 3, dtype=torch.float64)
    gain = 1.5

    torch.manual_seed(1)
    perturbed = settings.perturb(codes)
    images, partners = generator(codes), generator(perturbed.codes)
    pair_loss = 0.7 * perceptual_simplicity_loss(
        recognizer(images), recognizer(partners), codes, perturbed.codes, perturbed.dims
    )
    (images.square().sum() + gain * pair_loss.mean()).backward()
    expected = [parameter.grad.clone() for parameter in (*generator.parameters(), *recognizer.parameters())]

    generator.zero_grad()
    recognizer.zero_grad()
    torch.manual_seed(1)
    pair = add_pair_loss(generator(codes), codes, generator, recognizer, settings, gain)
    pair.images.square().sum().backward()
    actual = [parameter.grad for parameter in (*generator.parameters(), *recognizer.parameters())]
    torch.testing.assert_close(actual, expected, **SAME_FORMULA[torch.float64])
    torch.testing.assert_close(pair.loss, pair_loss.detach(), **SAME_FORMULA[torch.float64])
