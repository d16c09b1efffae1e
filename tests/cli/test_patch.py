"""`sc-layers patch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.integrations import patching
from tests.cli.running import assert_mistake, run
from tests.integrations.small_patch import BEFORE, NAME, contents, make_checkout, write


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_checkout(tmp_path / "checkout", monkeypatch)


def printed(*arguments: object) -> str:
    result = run("patch", *arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_command_says_what_it_did(checkout: Path) -> None:
    assert printed(NAME, checkout, "--check") == f"{checkout}: the patch fits\n"
    assert printed(NAME, checkout) == f"patched lib/loss.py, train.py in {checkout}\n"
    assert printed(NAME, checkout, "--check") == f"{checkout}: the patch is applied\n"
    assert printed(NAME, checkout, "--revert") == f"reverted lib/loss.py, train.py in {checkout}\n"
    assert contents(checkout) == BEFORE


def test_the_fuzzy_command_shows_checks_patches_and_names_what_it_left_alone(checkout: Path) -> None:
    fork = BEFORE | {"train.py": b"import os\n" + BEFORE["train.py"], "lib/loss.py": b"unlike = 1\n"}
    write(checkout, fork)
    assert_mistake(run("patch", NAME, checkout), "differ from the revision", "--fuzzy")
    assert "+zeroth = 0  # sc-layers\n first = 1\n" in printed(NAME, checkout, "--fuzzy", "--show")
    left = "left alone: lib/loss.py: no place for insertion 1"
    checked = printed(NAME, checkout, "--fuzzy", "--check")
    assert checked.startswith(f"{checkout}: the patch fits\n{left}")
    assert contents(checkout) == fork
    assert printed(NAME, checkout, "--fuzzy").startswith(f"patched train.py in {checkout}\n{left}")
    assert printed(NAME, checkout, "--revert") == f"reverted train.py in {checkout}\n"
    assert contents(checkout) == fork


def test_the_patch_is_shown_without_a_directory() -> None:
    assert printed("stylegan3", "--show").encode() == patching.patch_text("stylegan3")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stylegan4", "."], "there is no patch for 'stylegan4', only for stylegan2-ada, stylegan3, rosinality"),
        (["stylegan3"], "give DIR, the top of the code base"),
    ],
)
def test_mistakes_end_with_status_2_and_one_line(arguments: list[str], message: str) -> None:
    assert_mistake(run("patch", *arguments), message)
