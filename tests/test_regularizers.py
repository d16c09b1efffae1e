"""Regularisers of generators against their formulas and against their authors' programs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sc_layers.regularizers import hessian_penalty, orthogonal_jacobian_penalty
from sc_layers.training import resume_training, training_step
from sc_layers.training.snapshots import save_checkpoint
from tests.training.tiny import TINY, tiny_state

ALL_SIGNS = torch.tensor([*itertools.product((-1.0, 1.0), repeat=2)], dtype=torch.float64)  # [4, 2]


def test_numbers_of_the_authors_programs() -> None:
    # What hessian_penalty_pytorch.py (Peebles) and orojar_pytorch.py (Wei) give with these directions.
    draws = torch.Generator().manual_seed(0)
    codes = torch.randn(4, 3, generator=draws, dtype=torch.float64)
    weights = [torch.randn(3, 5, generator=draws, dtype=torch.float64)]
    weights.append(torch.randn(5, 6, generator=draws, dtype=torch.float64))
    directions = (torch.randint(0, 2, (3, 4, 3), generator=draws) * 2 - 1).double()

    def generator(z: Tensor) -> Tensor:
        return (torch.sin(torch.tanh(z @ weights[0]) @ weights[1]) * z.sum(1, keepdim=True)).view(len(z), 2, 3)

    hessian = hessian_penalty(generator, codes, directions=directions)
    jacobian = orthogonal_jacobian_penalty(generator, codes, directions=directions)
    assert hessian.item() == pytest.approx(8972.227067643065, rel=1e-9)
    assert jacobian.item() == pytest.approx(6909.982480528806, rel=1e-9)


def test_the_hessian_penalty_is_twice_the_squared_off_diagonal() -> None:
    codes = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    directions = ALL_SIGNS[:, None]
    unbiased = 4 / 3  # all four directions are the whole distribution, whose variance has no -1
    penalty = hessian_penalty(lambda z: 3 * z[:, :1] * z[:, 1:] + z**2, codes, directions=directions)
    assert penalty.item() == pytest.approx(unbiased * 2 * (2 * 3**2))
    assert hessian_penalty(lambda z: z**2, codes, directions=directions).item() == pytest.approx(0, abs=1e-9)


def test_the_jacobian_penalty_is_twice_the_squared_off_diagonal() -> None:
    codes = torch.zeros(1, 2, dtype=torch.float64)
    jacobian = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]], dtype=torch.float64)
    off_diagonal = float((jacobian.T @ jacobian)[0, 1])
    penalty = orthogonal_jacobian_penalty(lambda z: z @ jacobian.T, codes, directions=ALL_SIGNS[:, None])
    assert penalty.item() == pytest.approx(4 / 3 * 2 * 2 * off_diagonal**2)
    rotation = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    orthogonal = orthogonal_jacobian_penalty(lambda z: z @ rotation, codes, directions=ALL_SIGNS[:, None])
    assert orthogonal.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("shape", [(1, 2, 3), (2, 2, 4), (2, 3)])
def test_wrong_directions_are_named(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"directions must be \[D, 2, 3\], D at least 2"):
        hessian_penalty(lambda z: z, torch.zeros(2, 3), directions=torch.ones(shape))


def test_fine_tuning_can_begin_with_a_penalty(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny_state(), {}, keep=1)
    resumed = resume_training(tmp_path, torch.device("cpu"), {"regularizer": "orojar"})
    assert resumed.messages == ["regularizer none -> orojar"]
    assert training_step(resumed.state, torch.zeros(8, 3, 32, 32))["loss/regularizer"] > 0


@pytest.mark.parametrize("regularizer", ["hessian", "orojar"])
def test_a_training_follows_the_penalty(regularizer: str) -> None:
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    parameters = {}
    for weight in (0.0, 0.5):
        state = tiny_state(TINY.replace(regularizer=regularizer, regularizer_weight=weight, model="info_gan"))
        losses = training_step(state, images)
        parameters[weight] = [parameter.clone() for parameter in state.G.parameters()]
        assert losses["loss/regularizer"] > 0
    assert any(not torch.equal(*pair) for pair in zip(*parameters.values(), strict=True))
    with pytest.raises(ValueError, match="regularizer must be one of none, hessian, orojar, got 'l2'"):
        TINY.replace(regularizer="l2")
