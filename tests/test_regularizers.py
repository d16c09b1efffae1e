"""Regularisers of generators against their formulas and against their authors' programs."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sc_layers.regularizers import hessian_penalty, orthogonal_jacobian_penalty, pair_loss, sharing_partners
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


def test_the_loss_of_pairs_has_the_numbers_of_the_authors_program() -> None:
    # What calc_vc_loss of zhuxinqimac/stylegan2vp gives, which adds 1e-12 within the logarithm.
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=draws, dtype=torch.float64) * 3
    expected = [0.004079318649191129, 5.910790130344761, 0.24747577535862264, 0.23856203513647717]
    assert pair_loss(logits, torch.tensor([0, 2, 1, 2])).tolist() == pytest.approx(expected, rel=1e-8)


def test_partners_share_one_entry_alone_and_every_one_in_turn() -> None:
    draws = torch.Generator().manual_seed(0)
    codes, others = torch.randn(2, 200, 4, generator=draws)
    torch.manual_seed(0)
    partners, dims = sharing_partners(codes, others)
    expected = torch.nn.functional.one_hot(dims, 4).bool()
    assert torch.equal(partners == codes, expected)
    assert torch.equal(partners == others, ~expected)
    assert expected.sum(0).min() > 30
    _, dims = sharing_partners(codes, others, torch.tensor([0.0, 1.0, 0.0, 1.0]))
    assert set(dims.tolist()) == {1, 3}
    with pytest.raises(ValueError, match=r"must both be \[N, K\], got \(200, 4\) and \(200, 3\)"):
        sharing_partners(codes, others[:, 1:])


@pytest.mark.parametrize("regularizer", ["infogan_cr", "vp"])
def test_a_training_with_pairs_goes_on_as_if_it_had_not_ended(regularizer: str, tmp_path: Path) -> None:
    images = torch.rand(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    whole = tiny_state(TINY.replace(regularizer=regularizer, regularizer_weight=1.0, model="info_gan"))
    training_step(whole, images[0])
    save_checkpoint(tmp_path, whole, {}, keep=1)
    losses = training_step(whole, images[1])
    resumed = resume_training(tmp_path, torch.device("cpu"))
    assert resumed.messages == []
    assert training_step(resumed.state, images[1]) == losses
    for name in ("G", "D", "Q", "P", "G_ema"):
        ours, theirs = (getattr(state, name).state_dict() for state in (whole, resumed.state))
        assert all(torch.equal(ours[key], theirs[key]) for key in ours), name


def test_a_recogniser_of_pairs_learns_which_code_changed() -> None:
    settings = {"regularizer": "vp", "regularizer_weight": 10.0, "perturbation": 3.0, "learning_rate": 0.01}
    state = tiny_state(TINY.replace(**settings, model="gan", batch=16, batch_per_pass=16))
    losses = [training_step(state, torch.zeros(16, 3, 32, 32))["loss/regularizer"] for _ in range(40)]
    chance = torch.tensor(3.0).log()
    assert torch.stack(losses[-10:]).mean() < 0.8 * chance


def test_a_network_that_comes_or_goes_starts_the_optimiser_afresh(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny_state(), {}, keep=1)
    resumed = resume_training(tmp_path, torch.device("cpu"), {"regularizer": "vp"})
    message = "the generator's optimiser starts afresh: other weights learn"
    assert resumed.messages == ["regularizer none -> vp", message]
    save_checkpoint(tmp_path, resumed.state, {}, keep=1)
    without = resume_training(tmp_path, torch.device("cpu"), {"regularizer": "none"})
    assert without.messages == ["regularizer vp -> none", message]
    assert without.state.P is None


@pytest.mark.parametrize("regularizer", ["hessian", "orojar", "infogan_cr", "vp"])
def test_a_training_follows_the_penalty(regularizer: str) -> None:
    images = torch.rand(8, 3, 32, 32) * 2 - 1
    parameters = {}
    for weight in (0.0, 0.5):
        state = tiny_state(TINY.replace(regularizer=regularizer, regularizer_weight=weight, model="info_gan"))
        losses = training_step(state, images)
        parameters[weight] = [parameter.clone() for parameter in state.G.parameters()]
        assert losses["loss/regularizer"] > 0
    assert any(not torch.equal(*pair) for pair in zip(*parameters.values(), strict=True))
    with pytest.raises(ValueError, match="regularizer must be one of none, hessian, orojar, infogan_cr, vp, got 'l2'"):
        TINY.replace(regularizer="l2")
