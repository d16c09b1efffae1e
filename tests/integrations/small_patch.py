"""A patch of two small files, and a directory that it fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.integrations import patching

BEFORE = {"train.py": b"first\nsecond\nthird", "lib/loss.py": b"one\r\ntwo\r\n"}
AFTER = {"train.py": b"zeroth\nfirst\nsecond\nmore\nand more\nthird", "lib/loss.py": b"one\r\nbetween\r\ntwo\r\n"}


def ids(path: str) -> str:
    return f"{patching.blob_id(BEFORE[path])}..{patching.blob_id(AFTER[path])}"


PATCH = (
    f"diff --git a/lib/loss.py b/lib/loss.py\nindex {ids('lib/loss.py')} 100644\n--- a/lib/loss.py\n+++ b/lib/loss.py\n"
    "@@ -1,0 +2 @@\n+between\r\n"
    f"diff --git a/train.py b/train.py\nindex {ids('train.py')} 100644\n--- a/train.py\n+++ b/train.py\n"
    "@@ -0,0 +1 @@\n+zeroth\n@@ -2,0 +4,2 @@\n+more\n+and more\n"
).encode()
NAME = "rosinality"


def write(directory: Path, contents: dict[str, bytes]) -> Path:
    for path, data in contents.items():
        (directory / path).parent.mkdir(parents=True, exist_ok=True)
        (directory / path).write_bytes(data)
    return directory


def contents(directory: Path) -> dict[str, bytes]:
    files = [file for file in directory.rglob("*") if file.is_file()]
    return {file.relative_to(directory).as_posix(): file.read_bytes() for file in files}


def make_checkout(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that the test patch fits, not a git checkout; the patch stands in for all of ours."""
    monkeypatch.setattr(patching, "patch_text", lambda name: PATCH)
    return write(directory, BEFORE)
