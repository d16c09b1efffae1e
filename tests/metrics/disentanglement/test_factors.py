"""Drawing images by their factors, and the representations of what was drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics.disentanglement.factors import (
    Draws,
    Grid,
    encode,
    labelled,
    random_state,
    require_discrete,
    sample_codes,
    varying_factors,
)

SIZES = (2, 3, 1)


@pytest.fixture
def grid() -> Grid:
    return Grid(Numbers())


class Numbers:
    """Images [B, 3, 1, 1] that are the factors themselves."""

    factor_sizes = SIZES

    def images(self, factors: np.ndarray) -> Tensor:
        return torch.as_tensor(factors, dtype=torch.float32)[..., None, None]


def rng() -> np.random.RandomState:
    return np.random.RandomState(0)


def test_factors_are_drawn_in_their_order_from_one_stream(grid: Grid) -> None:
    expected, stream = rng(), []
    for size in SIZES:
        stream.append(expected.randint(size, size=50))
    assert np.array_equal(grid.draw(50, rng()).factors, np.stack(stream, axis=1))


def test_parts_are_drawn_a_chunk_at_a_time(grid: Grid) -> None:
    parts = grid.draw_parts([5, 3], rng(), chunk=4)
    assert [len(part.factors) for part in parts] == [5, 3]
    stream = rng()
    expected = [grid.draw(num, stream).factors for num in (4, 1, 3)]
    assert np.array_equal(Draws.joined(parts).factors, np.concatenate(expected))


def test_a_group_shares_one_factor_and_pairs_share_it_row_by_row(grid: Grid) -> None:
    group = grid.draw_group(1, 40, rng()).factors
    assert len(np.unique(group[:, 1])) == 1
    assert len(np.unique(group[:, 0])) == 2
    first, second = grid.draw_pairs(1, 40, rng())
    assert np.array_equal(first.factors[:, 1], second.factors[:, 1])
    assert not np.array_equal(first.factors[:, 0], second.factors[:, 0])


def test_a_set_without_names_gets_numbers(grid: Grid) -> None:
    assert grid.factor_names == ("factor 0", "factor 1", "factor 2")
    assert labelled(grid) is grid
    assert isinstance(labelled(Numbers()), Grid)


def test_factors_of_one_value_are_left_out_with_a_warning(grid: Grid) -> None:
    with pytest.warns(RuntimeWarning, match="single value are left out: factor 2"):
        assert varying_factors(grid).tolist() == [0, 1]


def test_continuous_factors_are_refused_by_name(grid: Grid) -> None:
    require_discrete(grid)
    grid.continuous = (1,)
    with pytest.raises(ValueError, match=r"these are continuous: 'factor 1' \(3 values\)"):
        require_discrete(grid)


def test_a_seed_stands_for_its_stream_and_a_stream_for_itself() -> None:
    stream = rng()
    assert random_state(stream) is stream
    assert random_state(3).randint(1000) == np.random.RandomState(3).randint(1000)


def test_rows_come_back_in_their_order_although_the_encoder_sees_them_shuffled() -> None:
    seen: list[float] = []

    def encoder(images: Tensor) -> Tensor:
        seen.extend(images.flatten().tolist())
        return images.flatten(1)

    keys = np.arange(10)
    codes = encode(encoder, lambda rows: torch.as_tensor(rows, dtype=torch.float32).view(-1, 1, 1, 1), keys, 4)
    assert codes[:, 0].tolist() == keys.tolist()
    assert seen != keys.tolist()
    assert sorted(seen) == keys.tolist()


def test_bytes_are_brought_to_the_range_of_networks_and_the_mode_is_put_back() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.9)).train()
    codes = encode(encoder, lambda rows: torch.full((len(rows), 1, 1, 1), 255, dtype=torch.uint8), np.arange(8))
    assert (codes == 1).all()
    assert encoder.training


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (lambda images: None, r"returned NoneType for 3 images, expected \[3, K\]"),
        (lambda images: images, r"returned shape \(3, 1, 1, 1\) for 3 images"),
        (lambda images: images.flatten(1) * float("nan"), "values that are not finite"),
    ],
)
def test_what_is_no_representation_is_named(encoder: Callable[[Tensor], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode(encoder, lambda rows: torch.zeros(len(rows), 1, 1, 1), np.arange(3))
    with pytest.raises(ValueError, match="asked for 0 samples"):
        encode(encoder, lambda rows: torch.zeros(0, 1, 1, 1), np.arange(0))


def test_samples_pair_representations_with_the_factors_that_made_them() -> None:
    for codes, factors in sample_codes(lambda images: images.flatten(1), Numbers(), [6, 2], rng(), 4, 3, None):
        assert np.array_equal(codes, factors)
