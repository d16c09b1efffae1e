"""Discriminator and recogniser against the authors' program, and what they must bear."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sc_layers.models import Discriminator, DiscriminatorConfig, Recognizer, RecognizerConfig
from tests.models.golden_networks import FILES, load, names, network
from tests.tolerances import GOLDEN_NETWORK_ABSOLUTE, SAME_FORMULA, assert_close_absolute

TINY: dict[str, Any] = {"resolution": 8, "num_channels": 1, "fmap_min": 3, "fmap_max": 3}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("batch", [8, 3])
@pytest.mark.parametrize("name", FILES)
def test_outputs_match_the_authors(name: str, batch: int, channels_last: bool) -> None:
    golden = load(name)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    images = golden["dn_images"][:batch].contiguous(memory_format=layout)
    compared = [trunk for trunk in names(golden) if f"{trunk}_out{batch}" in golden]
    assert compared
    for trunk in compared:
        with torch.no_grad():
            outputs = network(golden, trunk).to(memory_format=layout)(images)
        assert_close_absolute(outputs, golden[f"{trunk}_out{batch}"], GOLDEN_NETWORK_ABSOLUTE, trunk)


def test_a_recognizer_without_minibatch_std_reads_each_image_alone() -> None:
    Q = Recognizer(RecognizerConfig(num_codes=4, minibatch_std=False, **TINY))
    images = torch.randn(5, 1, 8, 8)
    alone = torch.cat([Q(image[None]) for image in images])
    torch.testing.assert_close(Q(images), alone, **SAME_FORMULA[torch.float32])
    assert Q.num_codes == alone.shape[1] == 4


def test_minibatch_std_lets_the_batch_in() -> None:
    D = Discriminator(DiscriminatorConfig(**TINY))
    images = torch.randn(4, 1, 8, 8)
    assert not torch.allclose(D(images)[:1], D(images[:1]))


def test_a_batch_that_cannot_be_grouped_is_named() -> None:
    with pytest.raises(ValueError, match="a batch of 6 cannot be grouped"):
        Discriminator(DiscriminatorConfig(**TINY))(torch.zeros(6, 1, 8, 8))


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 1, 16, 16), (1, 8, 8)])
def test_images_of_another_shape_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images must have shape \(N, 1, 8, 8\), got \("):
        Discriminator(DiscriminatorConfig(**TINY))(torch.zeros(shape))


def test_the_discriminator_differentiates_twice() -> None:
    D = Discriminator(DiscriminatorConfig(**TINY)).double()
    images = torch.randn(4, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(D, (images,), fast_mode=True)
    assert torch.autograd.gradgradcheck(D, (images,), fast_mode=True)


def test_a_gradient_penalty_reaches_the_parameters() -> None:
    D = Discriminator(DiscriminatorConfig(**TINY))
    images = torch.randn(4, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(D(images).sum(), images, create_graph=True)
    gradient.square().sum().backward()
    reached = {name for name, parameter in D.named_parameters() if parameter.grad is not None}
    assert {name for name, _ in D.named_parameters() if name.endswith("weight")} <= reached


def _bfloat16_deviation(D: Discriminator, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = D(images)
        outputs.sum().backward()
    assert outputs.dtype == torch.float32
    return (outputs - D(images)).abs().max()


def test_bfloat16_autocast_stays_close_and_returns_float32() -> None:
    D = Discriminator(DiscriminatorConfig(**TINY))
    images = torch.randn(8, 1, 8, 8)
    assert _bfloat16_deviation(D, images) < 0.05 * D(images).abs().max()
    assert all(parameter.grad is not None for parameter in D.parameters())
