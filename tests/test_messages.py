"""How messages quote values."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sc_layers.messages import shown


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("circle", "'circle'"),
        (b"ab", "b'ab'"),
        (None, "None"),
        (True, "True"),
        (-3, "-3"),
        (0.5, "0.5"),
        (2**64 - 1, "18446744073709551615"),
        (-(2**64), "an integer of 65 bits"),
        (2**400_000, "an integer of 400001 bits"),
        ("a" * 81, f"'{'a' * 80}'..."),
        ([1, 2], "a list"),
        (torch.zeros(3), "a Tensor"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_quoted_in_short(value: Any, expected: str) -> None:
    assert shown(value) == expected


def test_what_a_value_says_of_itself_is_not_asked() -> None:
    class Loud:
        def __repr__(self) -> str:
            raise AssertionError("asked")

    assert shown([Loud()]) == "a list"
    assert shown(Loud()) == "a Loud"
