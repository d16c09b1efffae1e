"""PIPE on generators and encoders whose images of independent codes are known to look alike, or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sc_layers.metrics.disentanglement.pipe import pipe

SIZE = 16


class _Bars:
    """Two bars, as bright as two factors say; or one factor for both, where they are `tied`."""

    def __init__(self, tied: bool, count: int = 3000) -> None:
        self.values = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        if tied:
            self.values[:, 1] = self.values[:, 0]

    def __len__(self) -> int:
        return len(self.values)

    def images_at(self, indices: Any, /) -> Tensor:
        return draw(self.values[torch.as_tensor(indices)])


def draw(values: Tensor) -> Tensor:
    """Images [N, 1, 16, 16] of brightnesses [N, 2]."""
    return values.repeat_interleave(SIZE // 2, dim=1)[:, None, :, None].expand(-1, 1, -1, SIZE).contiguous()


def read(images: Tensor) -> Tensor:
    """The brightnesses [N, 2] in images."""
    return torch.stack([images[:, 0, 0, 0], images[:, 0, -1, 0]], dim=1)


def test_independent_codes_give_images_as_the_data_has_them() -> None:
    score = pipe(draw, read, _Bars(tied=False), num_samples=3000)
    assert score.score > 0.9
    assert score.details["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert score.note == "3,000 of the standard's 50,000 images"


def test_codes_that_depend_on_each_other_are_told_from_independent_ones() -> None:
    assert pipe(draw, read, _Bars(tied=True), num_samples=3000).score < 0.3


def test_a_generator_that_ignores_its_codes_cannot_be_told() -> None:
    score = pipe(lambda codes: torch.zeros(len(codes), 1, SIZE, SIZE), read, _Bars(tied=True), num_samples=300)
    assert score.score == 1.0


def test_the_same_seed_gives_the_same_score_and_random_numbers_stay() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = (pipe(draw, read, _Bars(tied=True), num_samples=200, seed=3) for _ in range(2))
    assert first.details == second.details
    assert torch.equal(torch.get_rng_state(), before)


def test_too_few_images_are_named() -> None:
    assert 0 <= pipe(draw, read, _Bars(tied=True), num_samples=3).score <= 1
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        pipe(draw, read, _Bars(tied=True), num_samples=1)
