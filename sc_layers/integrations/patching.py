"""Patches that only insert lines, applied and reverted without git: whole or not at all, byte for byte.

On files that differ from those a patch was made for, `apply_fuzzily` finds the places by their neighbours. Every
inserted line that is not blank ends in a mark, by which it is found again whatever else was edited.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath

from .placing import Neighbours, NoPlace, check_names, find_places

PATCH_FILE = "sc-layers.patch"

MARK = b"# sc-layers"

_HUNK = re.compile(rb"@@ -(\d+),0 \+\d+(?:,(\d+))? @@((?: (?:[0-9a-f]{8}|[|^;]))*)")
_INDEX = re.compile(rb"index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: [0-7]{6})?")


@dataclass(frozen=True)
class CodeBase:
    """A code base that can be patched.

    Args:
        folder: in `integrations`.
        repository: where it comes from.
        commits: revisions that the patch was tried on.
        essential: files without which nothing can be trained; a fork may lack the others.
    """

    folder: str
    repository: str
    commits: tuple[str, ...]
    essential: tuple[str, ...] = ("train.py", "training/training_loop.py")


CODE_BASES = {
    "stylegan2-ada": CodeBase(
        "stylegan2_ada", "NVlabs/stylegan2-ada-pytorch", ("d72cc7d041b42ec8e806021a205ed9349f87c6a4",)
    ),
    "stylegan3": CodeBase("stylegan3", "NVlabs/stylegan3", ("c233a919a6faee6e36a316ddd4eddababad1adf9",)),
    "rosinality": CodeBase(
        "rosinality",
        "rosinality/stylegan2-pytorch",
        ("bef283a1c24087da704d16c30abc8e36e63efa0e",),
        essential=("train.py",),
    ),
}


@dataclass
class Insertion:
    """Lines to insert.

    Args:
        position: number of the line after which they go.
        neighbours: lines around that place, where the patch tells them: those of this code base, and of others like it.
        lines: with their line ends.
    """

    position: int
    neighbours: list[Neighbours] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)


@dataclass
class FilePatch:
    """Insertions into one file.

    Args:
        path: relative, with forward slashes.
        before: git's blob id of the file that the patch is for.
        after: that of the patched file.
        insertions: from top to bottom.
    """

    path: str
    before: str
    after: str
    insertions: list[Insertion] = field(default_factory=list)

    def apply(self, data: bytes) -> bytes:
        """The file of content `data` with the lines inserted where the patch says."""
        lines = io.BytesIO(data).readlines()
        for insertion in reversed(self.insertions):
            lines[insertion.position : insertion.position] = insertion.lines
        return b"".join(lines)

    def apply_fuzzily(self, data: bytes) -> bytes:
        """The file of content `data` with the lines inserted where their neighbours are.

        Raises:
            ValueError: an insertion has no place, or the result would not work.
        """
        lines = io.BytesIO(data).readlines()
        try:
            places = find_places(lines, [insertion.neighbours for insertion in self.insertions])
        except NoPlace as error:
            reason, index = error.args
            first = self.insertions[index].lines[0].strip().decode()
            raise ValueError(
                f"{self.path}: no place for insertion {index + 1}, `{first}` and so on: {reason}"
            ) from None
        windows = data.count(b"\r\n") > len(lines) // 2
        inserted: set[int] = set()
        for place, insertion in reversed([*zip(places, self.insertions, strict=True)]):
            new = [_with_ends(line, windows) for line in _indented_as_around(insertion.lines, lines, place)]
            lines[place:place] = new
            inserted = {number + len(new) for number in inserted} | set(range(place + 1, place + 1 + len(new)))
        patched = b"".join(lines)
        try:
            check_names(patched.decode("utf-8-sig"), inserted)
        except (SyntaxError, ValueError) as error:
            raise ValueError(f"{self.path}: the inserted lines would not work here: {error}") from error
        return patched

    def revert(self, data: bytes) -> bytes:
        """The file of content `data` without marked lines, and without the blank lines that came with them."""
        lines = io.BytesIO(data).readlines()
        blank_follows = {tuple(_marked(insertion)) for insertion in self.insertions if not insertion.lines[-1].strip()}
        kept: list[bytes] = []
        block: list[bytes] = []
        for line in lines:
            if line.rstrip().endswith(MARK):
                block.append(line.strip())
                continue
            if block and not line.strip() and tuple(block) in blank_follows:
                block = []
                continue
            block = []
            kept.append(line)
        return b"".join(kept)


def _marked(insertion: Insertion) -> list[bytes]:
    return [line.strip() for line in insertion.lines if line.strip()]


def _indent(line: bytes) -> int:
    return len(line) - len(line.lstrip())


def _indented_as_around(new: list[bytes], lines: list[bytes], place: int) -> list[bytes]:
    """The lines to insert, as deep as those above and below `place` where these are equally deep.

    A fork may have wrapped the place in another block.
    """
    around = [next(filter(bytes.strip, side), b"") for side in (lines[:place][::-1], lines[place:])]
    depths = {_indent(line) for line in around}
    shift = depths.pop() - _indent(new[0]) if len(depths) == 1 else 0
    if shift < 0:
        return [line[-shift:] if line.strip() else line for line in new]
    return [b" " * shift + line if line.strip() else line for line in new]


def _with_ends(line: bytes, windows: bool) -> bytes:
    return line.rstrip(b"\r\n") + (b"\r\n" if windows else b"\n")


def blob_id(data: bytes) -> str:
    """Git's id of a file of content `data`."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def code_base(name: str) -> CodeBase:
    """The code base called `name`.

    Raises:
        ValueError: there is no patch for it.
    """
    if name not in CODE_BASES:
        raise ValueError(f"there is no patch for {name!r}, only for {', '.join(CODE_BASES)}")
    return CODE_BASES[name]


def patch_text(name: str) -> bytes:
    """The patch of the code base called `name`, as `git apply --unidiff-zero` takes it, too.

    Raises:
        ValueError: there is no patch for it.
    """
    return (resources.files(__package__) / "patches" / code_base(name).folder / PATCH_FILE).read_bytes()


def parse_patch(text: bytes) -> list[FilePatch]:
    """Read the `text` of a patch that only inserts lines.

    Raises:
        ValueError: it does anything else.
    """
    patches: list[FilePatch] = []
    ids = path = None
    missing = 0
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        if missing and line.startswith(b"+"):
            patches[-1].insertions[-1].lines.append(line[1:] + b"\n")
            missing -= 1
        elif not missing and line.startswith(b"diff --git a/"):
            path, ids = line.split(b" b/")[-1].decode(), None
            if path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise ValueError(f"line {number} of the patch leaves the directory: {path}")
        elif not missing and (match := _INDEX.fullmatch(line)) and path is not None:
            ids = match[1].decode(), match[2].decode()
            patches.append(FilePatch(path, *ids))
        elif not missing and (match := _HUNK.fullmatch(line)) and ids is not None:
            patches[-1].insertions.append(Insertion(int(match[1]), _neighbours(match[3].decode())))
            missing = int(match[2] or b"1")
        elif missing or not line.startswith((b"--- a/", b"+++ b/")):
            raise ValueError(f"line {number} of the patch is no insertion: {line.decode(errors='replace')!r}")
    if missing or not patches:
        raise ValueError("the patch is incomplete")
    return patches


def _neighbours(text: str) -> list[Neighbours]:
    """Neighbours as the header of a hunk tells them: `before | after`, several separated by semicolons.

    A `^` in place of the bar says that a blank line parts the insertion from the line above it.
    """
    found = []
    for part in filter(None, map(str.strip, text.split(";"))):
        before, bar, after = re.split(r"([|^])", part)
        found.append(Neighbours(tuple(before.split()), tuple(after.split()), bar == "^"))
    return found


def _read(directory: Path, patches: list[FilePatch]) -> dict[str, bytes]:
    """Content of every file that the patch touches.

    Raises:
        FileNotFoundError, NotADirectoryError: not the code base's directory.
        ValueError: a file that cannot be replaced safely.
    """
    if not directory.is_dir():
        kind = NotADirectoryError if directory.exists() else FileNotFoundError
        raise kind(f"{directory} is no directory")
    contents = {}
    for patch in patches:
        file = directory / patch.path
        if not file.is_file():
            raise FileNotFoundError(f"{directory} has no {patch.path}: is it the top of the code base?")
        if file.is_symlink():
            raise ValueError(f"{file} is a symbolic link; patch the directory that it points to")
        contents[patch.path] = file.read_bytes()
    return contents


def _changed(contents: Mapping[str, bytes], expected: Mapping[str, str]) -> list[str]:
    return [path for path, data in contents.items() if blob_id(data) != expected[path]]


def state(name: str, directory: Path) -> str:
    """Whether the directory is "clean" (the patch fits) or "patched".

    Args:
        name: the code base's name, a key of `CODE_BASES`.
        directory: its checkout.

    Raises:
        ValueError: neither, with what is wrong and what to do.
        FileNotFoundError, NotADirectoryError: not the code base's directory.
    """
    patches = parse_patch(patch_text(name))
    contents = _read(directory, patches)
    if not _changed(contents, {patch.path: patch.before for patch in patches}):
        return "clean"
    if not _changed(contents, {patch.path: patch.after for patch in patches}):
        return "patched"
    raise ValueError(_explain(name, directory, patches, contents))


def _explain(name: str, directory: Path, patches: list[FilePatch], contents: Mapping[str, bytes]) -> str:
    odd = [p.path for p in patches if blob_id(contents[p.path]) not in (p.before, p.after)]
    done = [p.path for p in patches if blob_id(contents[p.path]) == p.after]
    if not odd:
        return f"{directory} is patched in part: {', '.join(done)} but not the rest. Restore these files first."
    unix = {path: contents[path].replace(b"\r\n", b"\n") for path in odd}
    if all(blob_id(unix[patch.path]) in (patch.before, patch.after) for patch in patches if patch.path in odd):
        return (
            f"{', '.join(odd)} in {directory} have Windows line ends, which git put there: check out again with "
            "git -c core.autocrlf=false"
        )
    base = code_base(name)
    return (
        f"{', '.join(odd)} in {directory} differ from the revision of {base.repository} that the patch is for: changed "
        f"by hand, a fork, or another revision. Supported: {', '.join(commit[:12] for commit in base.commits)}. Try "
        "--fuzzy, which finds the places by their neighbours and shows what it did, or call "
        "sc_layers.attach_spatial_constriction on the generator in place of the patch"
    )


def apply_patch(name: str, directory: Path) -> list[str]:
    """Patch a code base, all files or none; returns the paths.

    Args:
        name: the code base's name, a key of `CODE_BASES`.
        directory: its checkout.

    Raises:
        ValueError: patched already, changed by hand, or another revision.
    """
    if state(name, directory) == "patched":
        raise ValueError(f"{directory} is patched already; --revert undoes it")
    patches = parse_patch(patch_text(name))
    contents = _read(directory, patches)
    new = {patch.path: patch.apply(contents[patch.path]) for patch in patches}
    wrong = _changed(new, {patch.path: patch.after for patch in patches})
    if wrong:
        raise ValueError(f"the patch does not lead to the content that it names in {', '.join(wrong)}")
    _replace(directory, contents, new)
    return list(contents)


@dataclass
class FuzzyPatch:
    """What `fuzzy_patch` found.

    Args:
        contents: each file before and after, by its path.
        left_out: files of the patch that stay as they are, with the reason.
    """

    contents: dict[str, tuple[bytes, bytes]]
    left_out: dict[str, str]

    def diff(self) -> str:
        """The changes with three lines of context."""
        parts = []
        for path, pair in self.contents.items():
            old, new = (data.decode("utf-8-sig", "replace").splitlines(keepends=True) for data in pair)
            parts.append("".join(difflib.unified_diff(old, new, f"a/{path}", f"b/{path}")))
        return "".join(parts)


def fuzzy_patch(name: str, directory: Path) -> FuzzyPatch:
    """Find places for a patch in files that differ from those it was made for; nothing is written.

    Files that training needs must take it; others may be missing or have no place, and are left out.

    Args:
        name: the code base's name, a key of `CODE_BASES`.
        directory: top of the fork.

    Raises:
        FileNotFoundError, NotADirectoryError: not the code base's directory.
        ValueError: patched already, or a file that training needs does not take the patch; says where and why.
    """
    essential = code_base(name).essential
    found = FuzzyPatch({}, {})
    for patch in parse_patch(patch_text(name)):
        if patch.path not in essential and not (directory / patch.path).is_file():
            found.left_out[patch.path] = "there is no such file"
            continue
        data = _read(directory, [patch])[patch.path]
        if MARK in data:
            raise ValueError(f"{directory} is patched already; --revert undoes it")
        try:
            found.contents[patch.path] = (data, patch.apply_fuzzily(data))
        except ValueError as error:
            if patch.path in essential:
                raise
            found.left_out[patch.path] = str(error).removeprefix(f"{patch.path}: ")
    return found


def apply_fuzzily(name: str, directory: Path) -> FuzzyPatch:
    """Patch a fork, all files that `fuzzy_patch` found places in or none; returns what it did.

    Args:
        name: the code base's name, a key of `CODE_BASES`.
        directory: top of the fork.

    Raises:
        ValueError: see `fuzzy_patch`.
    """
    found = fuzzy_patch(name, directory)
    old = {path: pair[0] for path, pair in found.contents.items()}
    _replace(directory, old, {path: pair[1] for path, pair in found.contents.items()})
    return found


def revert_patch(name: str, directory: Path) -> list[str]:
    """Take out every line with our mark, whatever else was edited since; returns the paths.

    Args:
        name: the code base's name, a key of `CODE_BASES`.
        directory: its top.

    Raises:
        ValueError: nothing is marked.
    """
    patches = [patch for patch in parse_patch(patch_text(name)) if (directory / patch.path).is_file()]
    contents = _read(directory, patches)
    patched = {patch.path: patch for patch in patches if MARK in contents[patch.path]}
    if not patched:
        raise ValueError(f"{directory} is not patched")
    _replace(
        directory,
        {path: contents[path] for path in patched},
        {path: patch.revert(contents[path]) for path, patch in patched.items()},
    )
    return list(patched)


def _replace(directory: Path, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> None:
    """Write all new contents beside the files, then move them into place; put back the old ones on any failure."""
    temporary = {path: directory / f"{path}.sc-layers-part" for path in new}
    moved: list[str] = []
    try:
        for path, file in temporary.items():
            file.write_bytes(new[path])
            file.chmod((directory / path).stat().st_mode)
        for path, file in temporary.items():
            os.replace(file, directory / path)
            moved.append(path)
    except BaseException:
        for path in moved:
            (directory / path).write_bytes(old[path])
        raise
    finally:
        for file in temporary.values():
            file.unlink(missing_ok=True)
