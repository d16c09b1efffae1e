"""What several commands share: lists of numbers, devices, the codes of a seed."""

from __future__ import annotations

import click
import pytest
import torch

from sc_layers.cli._common import Integers, pick_device


@pytest.mark.parametrize(
    ("text", "numbers"), [("3", [3]), ("0-3,7", [0, 1, 2, 3, 7]), (" 5 , 1-1 ", [5, 1]), ("2,2", [2, 2])]
)
def test_numbers_and_ranges_are_read(text: str, numbers: list[int]) -> None:
    assert Integers().convert(text, None, None) == numbers


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0-x", "'0-x' is not a list"),
        ("", "'' is not a list"),
        ("-3", "is not a list"),
        ("5-2", "'5-2' runs backwards"),
    ],
)
def test_other_texts_are_named(text: str, message: str) -> None:
    with pytest.raises(click.BadParameter, match=message):
        Integers().convert(text, None, None)


def test_a_device_that_is_not_there_is_named() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(click.UsageError, match="device 'toaster' cannot be used"):
        pick_device("toaster")
