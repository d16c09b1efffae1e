"""`sc-layers patch`."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.integrations import patching
from tests.cli.running import assert_mistake, run
from tests.integrations.small_patch import BEFORE, NAME, contents, make_checkout


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stylegan4", "."], "there is no patch for 'stylegan4', only for stylegan2-ada, stylegan3, rosinality"),
        (["stylegan3"], "give DIR, the top of the code base"),
    ],
)
def test_the_command_ends_with_status_2_and_one_line(arguments: list[str], message: str) -> None:
    assert_mistake(run("patch", *arguments), message)
