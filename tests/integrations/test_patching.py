from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sc_layers.integrations import patching
from tests.integrations.small_patch import AFTER, BEFORE, NAME, PATCH, contents, make_checkout, write


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return make_checkout(tmp_path / "checkout", monkeypatch)


def test_applying_and_reverting_are_exact(checkout: Path) -> None:
    os.chmod(checkout / "train.py", 0o755)
    assert patching.apply_patch(NAME, checkout) == ["lib/loss.py", "train.py"]
    assert contents(checkout) == AFTER
    assert (checkout / "train.py").stat().st_mode & 0o777 == 0o755
    assert patching.state(NAME, checkout) == "patched"
    patching.revert_patch(NAME, checkout)
    assert contents(checkout) == BEFORE
    assert (checkout / "train.py").stat().st_mode & 0o777 == 0o755


def test_git_applies_the_patch_to_the_same_bytes(checkout: Path, tmp_path: Path) -> None:
    file = tmp_path / "sc.patch"
    file.write_bytes(PATCH)
    subprocess.run(["git", "init", "-q", checkout], check=True)
    subprocess.run(["git", "apply", "--unidiff-zero", "--whitespace=nowarn", file], cwd=checkout, check=True)
    assert {path: (checkout / path).read_bytes() for path in AFTER} == AFTER


def test_a_second_application_and_an_early_revert_are_refused(checkout: Path) -> None:
    with pytest.raises(ValueError, match="is not patched"):
        patching.revert_patch(NAME, checkout)
    patching.apply_patch(NAME, checkout)
    with pytest.raises(ValueError, match="patched already; --revert undoes it"):
        patching.apply_patch(NAME, checkout)
    assert contents(checkout) == AFTER


def test_a_changed_file_is_refused_and_nothing_is_touched(checkout: Path) -> None:
    changed = BEFORE | {"train.py": BEFORE["train.py"] + b"!"}
    write(checkout, changed)
    with pytest.raises(
        ValueError, match=r"^train.py in .* differ .*Supported: bef283a1c240.*attach_spatial_constriction"
    ):
        patching.apply_patch(NAME, checkout)
    assert contents(checkout) == changed


def test_a_patched_file_that_was_changed_since_is_not_reverted(checkout: Path) -> None:
    patching.apply_patch(NAME, checkout)
    changed = AFTER | {"train.py": AFTER["train.py"] + b"!"}
    write(checkout, changed)
    with pytest.raises(ValueError, match=r"^train.py in .* differ"):
        patching.revert_patch(NAME, checkout)
    assert contents(checkout) == changed


def test_a_directory_patched_in_part_is_named(checkout: Path) -> None:
    write(checkout, {"train.py": AFTER["train.py"]})
    with pytest.raises(ValueError, match=r"patched in part: train.py but not the rest"):
        patching.apply_patch(NAME, checkout)


def test_windows_line_ends_are_named(checkout: Path) -> None:
    write(checkout, {"train.py": BEFORE["train.py"].replace(b"\n", b"\r\n")})
    with pytest.raises(ValueError, match=r"train.py in .* have Windows line ends.*core.autocrlf=false"):
        patching.apply_patch(NAME, checkout)


def test_another_directory_is_named(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"lib has no lib/loss.py: is it the top"):
        patching.apply_patch(NAME, checkout / "lib")
    with pytest.raises(FileNotFoundError, match="is no directory"):
        patching.apply_patch(NAME, tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="is no directory"):
        patching.apply_patch(NAME, checkout / "train.py")


def test_symbolic_links_are_refused(checkout: Path, tmp_path: Path) -> None:
    target = tmp_path / "train.py"
    (checkout / "train.py").rename(target)
    (checkout / "train.py").symlink_to(target)
    with pytest.raises(ValueError, match="is a symbolic link"):
        patching.apply_patch(NAME, checkout)


@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_failure_in_the_middle_leaves_everything_as_it_was(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    original = os.replace
    calls = []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing_call:
            raise PermissionError("disk is full")
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(PermissionError, match="disk is full"):
        patching.apply_patch(NAME, checkout)
    assert contents(checkout) == BEFORE


def test_a_patch_that_lies_about_its_result_changes_nothing(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patching, "patch_text", lambda name: PATCH.replace(b"+zeroth", b"+other"))
    with pytest.raises(ValueError, match="does not lead to the content"):
        patching.apply_patch(NAME, checkout)
    assert contents(checkout) == BEFORE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"+zeroth", b"-zeroth"),
        (b"+zeroth", b" zeroth"),
        (b"@@ -0,0 +1 @@", b"@@ -0,1 +1 @@"),
        (b"b/lib/loss.py\n", b"b/../loss.py\n"),
        (b"b/lib/loss.py\n", b"b//etc/loss.py\n"),
        (b"+and more\n", b""),
    ],
)
def test_a_patch_that_does_more_than_insert_is_refused(old: bytes, new: bytes) -> None:
    assert old in PATCH
    with pytest.raises(ValueError, match=r"of the patch|incomplete"):
        patching.parse_patch(PATCH.replace(old, new, 1))


@pytest.mark.parametrize("name", patching.CODE_BASES)
def test_the_shipped_patches_only_insert_and_are_short(name: str) -> None:
    files = patching.parse_patch(patching.patch_text(name))
    inserted = [line for file in files for _, lines in file.insertions for line in lines]
    assert len(inserted) <= 60
    assert any(b"sc_layers.integrations" in line for line in inserted)
