"""Patches that only insert lines, applied and reverted without git: whole or not at all, byte for byte."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath

PATCH_FILE = "sc-layers.patch"

_HUNK = re.compile(rb"@@ -(\d+),0 \+\d+(?:,(\d+))? @@")
_INDEX = re.compile(rb"index ([0-9a-f]{40})\.\.([0-9a-f]{40})(?: [0-7]{6})?")


@dataclass(frozen=True)
class CodeBase:
    """A code base that can be patched.

    Args:
        folder: in `integrations`.
        repository: where it comes from.
        commits: revisions that the patch was tried on.
    """

    folder: str
    repository: str
    commits: tuple[str, ...]


CODE_BASES = {
    "stylegan2-ada": CodeBase(
        "stylegan2_ada", "NVlabs/stylegan2-ada-pytorch", ("d72cc7d041b42ec8e806021a205ed9349f87c6a4",)
    ),
    "stylegan3": CodeBase("stylegan3", "NVlabs/stylegan3", ("c233a919a6faee6e36a316ddd4eddababad1adf9",)),
    "rosinality": CodeBase("rosinality", "rosinality/stylegan2-pytorch", ("bef283a1c24087da704d16c30abc8e36e63efa0e",)),
}


@dataclass
class FilePatch:
    """Insertions into one file.

    Args:
        path: relative, with forward slashes.
        before: git's blob id of the file that the patch is for.
        after: that of the patched file.
        insertions: (line after which to insert, lines with their line ends).
    """

    path: str
    before: str
    after: str
    insertions: list[tuple[int, list[bytes]]] = field(default_factory=list)

    def apply(self, data: bytes) -> bytes:
        lines = io.BytesIO(data).readlines()
        for position, inserted in reversed(self.insertions):
            lines[position:position] = inserted
        return b"".join(lines)

    def revert(self, data: bytes) -> bytes:
        lines = io.BytesIO(data).readlines()
        for position, inserted in self.insertions:
            del lines[position : position + len(inserted)]
        return b"".join(lines)


def blob_id(data: bytes) -> str:
    """Git's id of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def code_base(name: str) -> CodeBase:
    """The code base of that name.

    Raises:
        ValueError: there is no patch for it.
    """
    if name not in CODE_BASES:
        raise ValueError(f"there is no patch for {name!r}, only for {', '.join(CODE_BASES)}")
    return CODE_BASES[name]


def patch_text(name: str) -> bytes:
    """The patch of a code base, as `git apply --unidiff-zero` takes it, too."""
    return (resources.files(__package__) / "patches" / code_base(name).folder / PATCH_FILE).read_bytes()


def parse_patch(text: bytes) -> list[FilePatch]:
    """Read a patch that only inserts lines.

    Raises:
        ValueError: anything else.
    """
    patches: list[FilePatch] = []
    ids = path = None
    missing = 0
    for number, line in enumerate(text.split(b"\n")[:-1], 1):
        if missing and line.startswith(b"+"):
            patches[-1].insertions[-1][1].append(line[1:] + b"\n")
            missing -= 1
        elif not missing and line.startswith(b"diff --git a/"):
            path, ids = line.split(b" b/")[-1].decode(), None
            if path.startswith("/") or ".." in PurePosixPath(path).parts:
                raise ValueError(f"line {number} of the patch leaves the directory: {path}")
        elif not missing and (match := _INDEX.fullmatch(line)) and path is not None:
            ids = match[1].decode(), match[2].decode()
            patches.append(FilePatch(path, *ids))
        elif not missing and (match := _HUNK.fullmatch(line)) and ids is not None:
            patches[-1].insertions.append((int(match[1]), []))
            missing = int(match[2] or b"1")
        elif missing or not line.startswith((b"--- a/", b"+++ b/")):
            raise ValueError(f"line {number} of the patch is no insertion: {line.decode(errors='replace')!r}")
    if missing or not patches:
        raise ValueError("the patch is incomplete")
    return patches


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
        f"by hand, or another revision. Supported: {', '.join(commit[:12] for commit in base.commits)}. With any other "
        "revision, call sc_layers.attach_spatial_constriction on the generator in place of the patch"
    )


def apply_patch(name: str, directory: Path) -> list[str]:
    """Patch a code base, all files or none; returns the paths.

    Raises:
        ValueError: patched already, changed by hand, or another revision.
    """
    if state(name, directory) == "patched":
        raise ValueError(f"{directory} is patched already; --revert undoes it")
    patches = parse_patch(patch_text(name))
    contents = _read(directory, patches)
    _replace(
        directory, contents, {p.path: p.apply(contents[p.path]) for p in patches}, {p.path: p.after for p in patches}
    )
    return list(contents)


def revert_patch(name: str, directory: Path) -> list[str]:
    """Undo `apply_patch`, byte for byte; returns the paths.

    Raises:
        ValueError: not patched, or changed since.
    """
    if state(name, directory) == "clean":
        raise ValueError(f"{directory} is not patched")
    patches = parse_patch(patch_text(name))
    contents = _read(directory, patches)
    _replace(
        directory, contents, {p.path: p.revert(contents[p.path]) for p in patches}, {p.path: p.before for p in patches}
    )
    return list(contents)


def _replace(directory: Path, old: Mapping[str, bytes], new: Mapping[str, bytes], expected: Mapping[str, str]) -> None:
    """Write all new contents beside the files, then move them into place; put back the old ones on any failure."""
    wrong = _changed(new, expected)
    if wrong:
        raise ValueError(f"the patch does not lead to the content that it names in {', '.join(wrong)}")
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
