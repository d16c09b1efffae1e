"""Codes that join a training one level after the other, those of the finest features first."""

from __future__ import annotations

_GROWING = 0.5  # of the time between two levels: how long one takes to reach its whole range


def shares(levels: int, images_seen: int, unlock_kimg: float) -> list[float]:
    """How much of their range the codes of each level have by now.

    The last level has all of it from the start. Each level before it begins `unlock_kimg` thousand images after the one
    that follows it, and grows to its whole range in half of that time.

    Args:
        levels: how many there are.
        images_seen: position in the training in images.
        unlock_kimg: thousands of images between two levels.

    Returns:
        One number for each level, from coarse to fine, from 0 to 1.

    >>> shares(2, images_seen=12_500, unlock_kimg=10)
    [0.5, 1.0]
    """
    begun = [images_seen / (1000 * unlock_kimg) - wait for wait in reversed(range(1, levels))]
    return [*(min(1.0, max(0.0, ago / _GROWING)) for ago in begun), 1.0]
