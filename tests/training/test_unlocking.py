"""When codes join a training."""

from __future__ import annotations

import pytest

from sc_layers.training.unlocking import shares


@pytest.mark.parametrize(
    ("images_seen", "expected"),
    [
        (0, [0.0, 0.0, 1.0]),
        (4_000, [0.0, 0.0, 1.0]),
        (5_000, [0.0, 0.5, 1.0]),
        (6_000, [0.0, 1.0, 1.0]),
        (8_000, [0.0, 1.0, 1.0]),
        (9_500, [0.75, 1.0, 1.0]),
        (900_000, [1.0, 1.0, 1.0]),
    ],
)
def test_levels_join_from_the_last_to_the_first_or_the_other_way_round(images_seen: int, expected: list[float]) -> None:
    assert shares(3, images_seen, unlock_kimg=4) == expected
    assert shares(3, images_seen, unlock_kimg=4, first="coarsest") == expected[::-1]


def test_one_level_is_there_from_the_start() -> None:
    assert shares(1, 0, unlock_kimg=4) == [1.0]
