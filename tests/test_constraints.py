"""The pinned versions cover what the tests install."""

from __future__ import annotations

import re

import pytest

from tests import constraints, versions

PINS = constraints.FILE.read_text().splitlines()[1:]


def pinned(python: str) -> dict[str, str]:
    """Version by package that holds for a Python."""
    found = {}
    for line in PINS:
        pin, _, marker = line.partition(" ; ")
        if not marker or f'"{python}"' in marker:
            name, version = pin.split("==")
            assert name not in found, f"{name} has two versions for Python {python}"
            found[name] = version
    return found


@pytest.mark.parametrize("python", sorted(set(versions.ENVIRONMENTS.values())))
def test_whatever_an_extra_asks_for_is_pinned(python: str) -> None:
    project = (constraints.ROOT / "pyproject.toml").read_text()
    lists = re.findall(
        r"^(?:dependencies|\w+) = \[(.*?)\]$", project.split("[project.scripts]")[0], re.DOTALL | re.MULTILINE
    )
    asked = {
        constraints.normalised(name)
        for part in lists
        for name in re.findall(r'"([A-Za-z][\w.-]*)(?:\[\w+\])?[><=~]', part)
    }
    assert {"pytest", "numpy", "starlette", "mkdocs"} <= asked
    free = {name for name in asked if constraints.FREE.fullmatch(name)}
    assert asked - free <= set(pinned(python))


def test_pytorch_is_free() -> None:
    assert not [name for name in pinned("3.12") if constraints.FREE.fullmatch(name)]


def test_pythons_that_agree_share_a_line() -> None:
    resolved = {"3.10": {"a": "1", "b": "1"}, "3.11": {"a": "1", "b": "2"}, "3.12": {"a": "1", "b": "2", "c": "3"}}
    marked = 'b==2 ; python_version == "3.11" or python_version == "3.12"'
    assert constraints.lines_of(resolved) == ["a==1", 'b==1 ; python_version == "3.10"', marked, "c==3"]
