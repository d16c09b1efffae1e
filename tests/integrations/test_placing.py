"""Places of insertions in files that differ from those a patch was made for."""

from __future__ import annotations

import re

import pytest

from sc_layers.integrations.placing import NoPlace, check_names, find_places, neighbours_of


def lines(text: str) -> list[bytes]:
    return [line.encode() for line in text.splitlines(keepends=True)]


ORIGINAL = lines("import a\n\ndef f(x):\n    y = x\n\n    return y\n")
BELOW_Y = [neighbours_of(ORIGINAL, 4)]
ABOVE_RETURN = [neighbours_of(ORIGINAL, 5)]


@pytest.mark.parametrize("change", ["", "# first\n", "import b\n\n\n"])
def test_places_move_with_their_neighbours(change: str) -> None:
    moved = [*lines(change), *ORIGINAL]
    shift = len(lines(change))
    assert find_places(moved, [BELOW_Y, ABOVE_RETURN]) == [4 + shift, 5 + shift]


def test_white_space_makes_no_difference() -> None:
    tabs = [line.replace(b"    ", b"\t").replace(b" = ", b"  =  ") for line in ORIGINAL]
    assert find_places(tabs, [BELOW_Y, ABOVE_RETURN]) == [4, 5]


def test_one_neighbour_is_enough_where_its_text_is_the_only_one() -> None:
    assert find_places(lines("z = 1\n    return y\nw = 2\n"), [ABOVE_RETURN]) == [1]
    with pytest.raises(NoPlace, match="no line around it is left"):
        find_places(lines("    return y\n    return y\n"), [ABOVE_RETURN])


def test_two_places_that_are_equally_good_are_told() -> None:
    with pytest.raises(NoPlace, match=re.escape("it would fit before lines 5, 11 alike")):
        find_places([*ORIGINAL, *ORIGINAL], [BELOW_Y])


def test_neighbours_of_another_code_base_count_where_the_own_are_gone() -> None:
    other = [neighbours_of(lines("q = 1\nr = 2\n"), 1)]
    assert find_places(lines("q = 1\nr = 2\n"), [[*BELOW_Y, *other]]) == [1]


@pytest.mark.parametrize(
    ("text", "inserted", "missing"),
    [
        ("def f(a):\n    b = a\n    c = b\n", {2, 3}, None),
        ("def f(a):\n    c = b\n    b = a\n", {2}, "b"),
        ("def f(a):\n    c = b\n    b = a\n", {3}, None),  # their line may be as it likes
        ("import os\n@os.path\ndef f():\n    return os\n", {2, 4}, None),
        ("def f():\n    return later\nlater = 1\n", {2}, None),  # a module is whole before its functions run
        ("value = later\nlater = 1\n", {1}, "later"),
        ("try:\n    import x\nexcept ImportError:\n    x = None\nif x is not None:\n    print(x)\n", {5, 6}, None),
        ("for i in range(3):\n    pass\nwith open('f') as g:\n    print(i, g)\n", {4}, None),
    ],
)
def test_names_that_inserted_lines_read_must_exist_above(text: str, inserted: set[int], missing: str | None) -> None:
    if missing is None:
        check_names(text, inserted)
    else:
        with pytest.raises(ValueError, match=f"would read '{missing}' before it exists"):
            check_names(text, inserted)


def test_what_does_not_compile_is_an_error() -> None:
    with pytest.raises(SyntaxError):
        check_names("def f(**kwargs, late=None):\n    pass\n", set())
