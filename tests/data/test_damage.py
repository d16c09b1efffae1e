from __future__ import annotations

import pytest

from sc_layers.data.damage import MOST_CHARACTERS, named_if_damaged


@pytest.mark.parametrize("error", [KeyError("a\nb"), MemoryError(), SyntaxError("x" * 10_000)])
def test_whatever_is_raised_becomes_one_short_line_with_the_name(error: Exception) -> None:
    one_line = r"^a\.png cannot be read as an image: [^\n]+$"
    with pytest.raises(ValueError, match=one_line) as caught, named_if_damaged("a.png", "an image"):
        raise error
    assert len(str(caught.value)) < MOST_CHARACTERS + 60
    assert caught.value.__cause__ is error


def test_what_ends_a_program_is_let_through() -> None:
    with pytest.raises(KeyboardInterrupt), named_if_damaged("a.png"):
        raise KeyboardInterrupt
