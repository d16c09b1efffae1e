"""Codes that join a training one level after the other."""

from __future__ import annotations

FIRST_LEVELS = ("finest", "coarsest")

_GROWING = 0.5  # of the time between two levels: how long one takes to reach its whole range


def shares(levels: int, images_seen: int, unlock_kimg: float, first: str = "finest") -> list[float]:
    """How much of their range the codes of each level have by now.

    The first level to join has all of it from the start. Each other begins `unlock_kimg` thousand images after its
    neighbour that is nearer to that one, and grows to its whole range in half of that time.

    Args:
        levels: how many there are.
        images_seen: position in the training in images.
        unlock_kimg: thousands of images between two levels.
        first: the level that is there from the start, one of `FIRST_LEVELS`.

    Returns:
        One number for each level, from coarse to fine, from 0 to 1.

    >>> shares(2, images_seen=12_500, unlock_kimg=10)
    [0.5, 1.0]
    """
    begun = [images_seen / (1000 * unlock_kimg) - wait for wait in range(1, levels)]
    joined = [1.0, *(min(1.0, max(0.0, ago / _GROWING)) for ago in begun)]
    return joined if first == "coarsest" else joined[::-1]
