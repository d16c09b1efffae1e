"""A patch of two small files, and a directory that it fits."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.integrations import patching
from sc_layers.integrations.placing import line_hash

BEFORE = {"train.py": b"first = 1\nsecond = 2\n\nthird = 3", "lib/loss.py": b"one = 1\r\ntwo = 2\r\n"}
AFTER = {
    "train.py": b"zeroth = 0  # sc-layers\nfirst = 1\nsecond = 2\n\nif second:  # sc-layers\n"
    b"    more = first  # sc-layers\n\nthird = 3",
    "lib/loss.py": b"one = 1\r\nbetween = one  # sc-layers\r\ntwo = 2\r\n",
}


def ids(path: str) -> str:
    return f"{patching.blob_id(BEFORE[path])}..{patching.blob_id(AFTER[path])}"


def hashes(*lines: str) -> str:
    return " ".join(line_hash(line.encode()) for line in lines)


PATCH = (
    f"diff --git a/lib/loss.py b/lib/loss.py\nindex {ids('lib/loss.py')} 100644\n--- a/lib/loss.py\n+++ b/lib/loss.py\n"
    f"@@ -1,0 +2 @@ {hashes('one = 1')} | {hashes('two = 2')}\n+between = one  # sc-layers\r\n"
    f"diff --git a/train.py b/train.py\nindex {ids('train.py')} 100644\n--- a/train.py\n+++ b/train.py\n"
    f"@@ -0,0 +1 @@ | {hashes('first = 1', 'second = 2')}\n+zeroth = 0  # sc-layers\n"
    f"@@ -3,0 +5,3 @@ {hashes('first = 1', 'second = 2')} ^ {hashes('third = 3')}\n"
    "+if second:  # sc-layers\n+    more = first  # sc-layers\n+\n"
).encode()
NAME = "rosinality"  # needs train.py alone


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
