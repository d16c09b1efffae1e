"""Perceptual path length, against a closed form and the authors' percentile rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sc_layers.metrics.distances import EfficientNetLite
from sc_layers.metrics.path_length import ppl, reject_tails
from tests.golden import load_golden
from tests.tolerances import ROUNDING, SAMPLED

pytest.importorskip("torchmetrics")


def linear(codes: Tensor) -> Tensor:
    return (codes * 0.02)[:, None, None, :]


def test_ppl_of_a_linear_generator_is_its_mean_squared_speed() -> None:
    """G(c) = a c moves by a eps (c' - c), so a distance of mean squares gives a^2 |c' - c|^2 / K / eps^2 * eps^2."""
    speed = 0.02
    result = ppl(
        lambda codes: (codes * speed)[:, None, None, :],
        4,
        num_samples=4000,
        epsilon=1e-2,
        percentiles=(0, 100),
        distance="mse",
    )
    assert result.score == pytest.approx(2 * (speed * 127.5) ** 2, rel=SAMPLED)
    assert result.details["num_kept"] == 4000


def test_ppl_leaves_out_the_tails() -> None:
    result = ppl(linear, 4, num_samples=1000, epsilon=1e-2, distance="mse")
    assert 970 < result.details["num_kept"] < 1000


def test_tails_are_rejected_as_in_the_authors_program() -> None:
    golden = load_golden("util")
    low, high, mean = golden.numpy("ppl_lo_hi_mean").tolist()
    kept = reject_tails(golden.numpy("ppl_all").astype(float))
    assert kept.min() == pytest.approx(low, rel=ROUNDING["rtol"])
    assert kept.max() == pytest.approx(high, rel=ROUNDING["rtol"])
    assert kept.mean() == pytest.approx(mean, rel=ROUNDING["rtol"])


def test_ppl_with_the_offline_network_is_finite_at_the_papers_step() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")

    def smooth(codes: Tensor) -> Tensor:
        return torch.sin(codes.sum(1)[:, None, None, None] + torch.linspace(0, 6, 32)).expand(-1, 3, 32, -1)

    score = ppl(smooth, 3, num_samples=16, distance=EfficientNetLite()).score
    assert np.isfinite(score)
    assert score > 0


@pytest.mark.parametrize("arguments", [{"num_samples": 0}, {"percentiles": (99, 1)}, {"distance": "l2"}])
def test_wrong_settings_of_ppl_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_samples|percentiles|unknown distance"):
        ppl(linear, 3, **{"num_samples": 10, "distance": "mse", **arguments})


def test_fewer_pairs_than_the_standard_are_said_beside_the_number() -> None:
    assert ppl(linear, 4, num_samples=10, distance="mse").note == "10 of the standard's 50,000 pairs"
