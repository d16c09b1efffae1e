"""Codes: their distributions, and sweeps of single ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sc_layers.models.latents import codes_of_seed, draw_codes, recorded_latents, traversal_codes
from tests.golden import load_golden
from tests.tolerances import SAME_FORMULA, SAMPLED


@pytest.mark.parametrize(("latents", "std"), [("uniform", 4 / 12**0.5), ("normal", 1.0)])
def test_codes_have_the_documented_distribution(latents: str, std: float) -> None:
    codes = draw_codes(20_000, 2, latents, draws=torch.Generator().manual_seed(0))
    assert codes.mean().abs() < 0.03
    assert codes.std().item() == pytest.approx(std, rel=SAMPLED)
    assert latents == "normal" or codes.abs().max() <= 2


def test_a_source_of_its_own_repeats_and_leaves_the_global_one_alone() -> None:
    torch.manual_seed(0)
    first, second = (draw_codes(3, 2, "normal", draws=torch.Generator().manual_seed(1)) for _ in range(2))
    after = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(first, second)
    assert torch.equal(after, torch.rand(1))


def test_an_unknown_distribution_is_named() -> None:
    with pytest.raises(ValueError, match="latents must be one of uniform, normal, got 'gaussian'"):
        draw_codes(1, 2, "gaussian")


@pytest.mark.parametrize("name", ["grid", "grid_topk"])
def test_sweeps_equal_the_authors(name: str) -> None:
    golden = load_golden("util")
    settings = golden.config[name]
    codes = traversal_codes(golden[f"{name}_base"][0], settings["n_samples_per"], 2.0, settings["topk"])
    torch.testing.assert_close(codes.flatten(0, 1), golden[f"{name}_latents"], **SAME_FORMULA[torch.float64])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"points": 1}, "at least 2 points, got 1"),
        ({"points": 5, "dims": [3]}, "code 3 does not exist: there are 3 codes"),
    ],
)
def test_a_sweep_that_cannot_be_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        traversal_codes(torch.zeros(3), **arguments)


@pytest.mark.parametrize(
    ("meta", "asked", "expected"),
    [
        ({"training": {"latents": "uniform"}}, None, "uniform"),
        ({"training": {"latents": "uniform"}}, "normal", "normal"),
        ({"training": "none"}, None, "normal"),
        ({}, None, "normal"),
        ({}, "uniform", "uniform"),
    ],
)
def test_codes_come_from_the_distribution_that_the_file_records(
    meta: dict[str, object], asked: str | None, expected: str
) -> None:
    assert recorded_latents(meta, asked) == expected


def test_a_recorded_distribution_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="got 'cauchy'"):
        recorded_latents({"training": {"latents": "cauchy"}})


def test_a_seed_names_the_same_codes_whatever_was_drawn_before() -> None:
    first = codes_of_seed(3, 4, "uniform")
    before = torch.get_rng_state()
    assert torch.equal(codes_of_seed(3, 4, "uniform"), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(codes_of_seed(4, 4, "uniform"), first)
    assert first.abs().max() <= 2
