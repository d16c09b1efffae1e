"""Random codes have the distributions that they are said to have."""

from __future__ import annotations

import pytest
import torch

from sc_layers.models.latents import draw_codes


@pytest.mark.parametrize(("latents", "std"), [("uniform", 4 / 12**0.5), ("normal", 1.0)])
def test_codes_have_the_documented_distribution(latents: str, std: float) -> None:
    codes = draw_codes(20_000, 2, latents, draws=torch.Generator().manual_seed(0))
    assert codes.mean().abs() < 0.03
    assert codes.std().item() == pytest.approx(std, abs=0.02)
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
