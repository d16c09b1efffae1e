<<<<<<< HEAD
"""`sc-layers patch`."""

=======
>>>>>>> 1a5279f (Patch forks by hashes of the lines around each place; mark every inserted line; show codes while training)
from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.integrations import patching
from tests.cli.running import assert_mistake, run
<<<<<<< HEAD
from tests.integrations.small_patch import BEFORE, NAME, contents, make_checkout
=======
from tests.integrations.test_patching import BEFORE, NAME, PATCH, contents, write
>>>>>>> 1a5279f (Patch forks by hashes of the lines around each place; mark every inserted line; show codes while training)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
<<<<<<< HEAD
    return make_checkout(tmp_path / "checkout", monkeypatch)


def test_the_command_says_what_it_did(checkout: Path) -> None:
    def patch(*arguments: str) -> str:
        result = run("patch", NAME, checkout, *arguments)
        assert result.exit_code == 0, result.output
        return result.output

    assert patch("--check") == f"{checkout}: the patch fits\n"
    assert patch() == f"patched lib/loss.py, train.py in {checkout}\n"
    assert patch("--check") == f"{checkout}: the patch is applied\n"
    assert patch("--revert") == f"reverted lib/loss.py, train.py in {checkout}\n"
    assert contents(checkout) == BEFORE


def test_the_command_shows_the_patch_without_a_directory() -> None:
    result = run("patch", "stylegan3", "--show")
    assert result.output.encode() == patching.patch_text("stylegan3")
=======
    """A directory that the test patch fits."""
    monkeypatch.setattr(patching, "patch_text", lambda name: PATCH)
    return write(tmp_path / "checkout", BEFORE)


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
>>>>>>> 1a5279f (Patch forks by hashes of the lines around each place; mark every inserted line; show codes while training)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stylegan4", "."], "there is no patch for 'stylegan4', only for stylegan2-ada, stylegan3, rosinality"),
        (["stylegan3"], "give DIR, the top of the code base"),
    ],
)
<<<<<<< HEAD
def test_the_command_ends_with_status_2_and_one_line(arguments: list[str], message: str) -> None:
=======
def test_mistakes_end_with_status_2_and_one_line(arguments: list[str], message: str) -> None:
>>>>>>> 1a5279f (Patch forks by hashes of the lines around each place; mark every inserted line; show codes while training)
    assert_mistake(run("patch", *arguments), message)
