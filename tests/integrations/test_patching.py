from __future__ import annotations

import os
import subprocess
import warnings
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


def test_reverting_takes_out_our_lines_although_others_were_edited(checkout: Path) -> None:
    patching.apply_patch(NAME, checkout)
    edited = AFTER["train.py"].replace(b"first = 1\n", b"first = 1\nmine = 5\n") + b"\nlast = 4\n"
    write(checkout, {"train.py": edited})
    patching.revert_patch(NAME, checkout)
    assert (checkout / "train.py").read_bytes() == b"first = 1\nmine = 5\nsecond = 2\n\nthird = 3\nlast = 4\n"


def test_an_edited_file_takes_the_patch_by_the_neighbours_of_its_places(checkout: Path) -> None:
    fork = b"import os\nfirst = 1\nsecond = 2\nextra = 9\n\nthird = 3"
    write(checkout, {"train.py": fork})
    found = patching.apply_fuzzily(NAME, checkout)
    assert found.left_out == {}
    assert (checkout / "train.py").read_bytes() == (
        b"import os\nzeroth = 0  # sc-layers\nfirst = 1\nsecond = 2\nif second:  # sc-layers\n"
        b"    more = first  # sc-layers\n\nextra = 9\n\nthird = 3"
    )
    assert (checkout / "lib" / "loss.py").read_bytes() == AFTER["lib/loss.py"]
    patching.revert_patch(NAME, checkout)
    assert contents(checkout) == BEFORE | {"train.py": fork}


@pytest.mark.parametrize("deep", [b"    ", b"        "])
def test_lines_go_as_deep_as_those_around_them_where_a_fork_has_wrapped_these(checkout: Path, deep: bytes) -> None:
    fork = b"if True:\n" + deep + b"one = 1\n" + deep + b"two = 2\n"
    write(checkout, {"lib/loss.py": fork})
    patching.apply_fuzzily(NAME, checkout)
    assert (checkout / "lib" / "loss.py").read_bytes() == (
        b"if True:\n" + deep + b"one = 1\n" + deep + b"between = one  # sc-layers\n" + deep + b"two = 2\n"
    )
    patching.revert_patch(NAME, checkout)
    assert (checkout / "lib" / "loss.py").read_bytes() == fork


def test_warnings_about_lines_of_a_fork_are_not_ours_to_give(checkout: Path) -> None:
    write(checkout, {"lib/loss.py": b"one = 1\r\ntwo = 2\r\nodd = one is not 1\r\n"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        patching.apply_fuzzily(NAME, checkout)


def test_on_the_exact_files_the_fuzzy_patch_is_the_exact_one(checkout: Path) -> None:
    patching.apply_fuzzily(NAME, checkout)
    assert contents(checkout) == AFTER


def test_files_that_training_does_not_need_are_left_alone_with_the_reason(checkout: Path) -> None:
    write(checkout, {"lib/loss.py": b"unlike = 1\n"})
    found = patching.apply_fuzzily(NAME, checkout)
    assert list(found.contents) == ["train.py"]
    assert "no place for insertion 1, `between = one  # sc-layers`" in found.left_out["lib/loss.py"]
    (checkout / "lib" / "loss.py").unlink()
    patching.revert_patch(NAME, checkout)
    assert patching.fuzzy_patch(NAME, checkout).left_out == {"lib/loss.py": "there is no such file"}


def test_a_line_that_would_read_a_name_before_it_exists_is_not_inserted(checkout: Path) -> None:
    write(checkout, {"lib/loss.py": b"two = 2\r\n"})
    reason = patching.fuzzy_patch(NAME, checkout).left_out["lib/loss.py"]
    assert reason == "the inserted lines would not work here: line 1 would read 'one' before it exists"


@pytest.mark.parametrize(
    ("fork", "reason"),
    [
        (b"nothing = 0\n", "no line around it is left"),
        (b"first = 1\nsecond = 2\nfirst = 1\nsecond = 2\nthird = 3\n", "it would fit before lines"),
        (b"third = 3\nfirst = 1\n", "not in the order that the patch expects"),
        (b"if True:\n    first = 1\n    second = 2\n", "would not work here: expected an indented block"),
    ],
)
def test_a_file_that_training_needs_must_take_the_patch_or_nothing_is_changed(
    checkout: Path, fork: bytes, reason: str
) -> None:
    write(checkout, {"train.py": fork})
    with pytest.raises(ValueError, match=reason):
        patching.apply_fuzzily(NAME, checkout)
    assert contents(checkout) == BEFORE | {"train.py": fork}


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
    monkeypatch.setattr(patching, "patch_text", lambda name: PATCH.replace(b"+zeroth =", b"+other ="))
    with pytest.raises(ValueError, match="does not lead to the content"):
        patching.apply_patch(NAME, checkout)
    assert contents(checkout) == BEFORE


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"+zeroth", b"-zeroth"),
        (b"+zeroth", b" zeroth"),
        (b"@@ -0,0 +1 @@", b"@@ -0,1 +1 @@"),
        (b"@@ -0,0 +1 @@ |", b"@@ -0,0 +1 @@ upstream |"),
        (b"b/lib/loss.py\n", b"b/../loss.py\n"),
        (b"b/lib/loss.py\n", b"b//etc/loss.py\n"),
        (b"+    more = first  # sc-layers\n", b""),
    ],
)
def test_a_patch_that_does_more_than_insert_is_refused(old: bytes, new: bytes) -> None:
    assert old in PATCH
    with pytest.raises(ValueError, match=r"of the patch|incomplete"):
        patching.parse_patch(PATCH.replace(old, new, 1))


@pytest.mark.parametrize("name", patching.CODE_BASES)
def test_the_shipped_patches_only_insert_and_are_short(name: str) -> None:
    files = patching.parse_patch(patching.patch_text(name))
    inserted = [line for file in files for insertion in file.insertions for line in insertion.lines if line.strip()]
    assert len(inserted) <= 70
    assert all(line.rstrip().endswith(patching.MARK) for line in inserted)
    assert all(insertion.neighbours for file in files for insertion in file.insertions)
    assert any(b"sc_layers.integrations" in line for line in inserted)
