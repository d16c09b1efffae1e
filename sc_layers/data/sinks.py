"""Where converted pictures go: a zip or a folder, which an interrupted conversion goes on with.

Pictures are PNG files `00000/img00000000.png`. `convert.json`, which tells how they were made, comes first, and
`dataset.json`, which holds the labels, last.
"""

from __future__ import annotations

import json
import os
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Protocol

from ..files import write_file
from .formats.files import LABEL_FILE, RECIPE_FILE

PER_FOLDER = 1000
FILE_MODE = 0o644
_NAME = re.compile(r"\d{5}/img(\d{8})\.png")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\3\4"


class Sink(Protocol):
    """Where a conversion goes.

    Attributes:
        done: indices of the pictures that earlier runs wrote.
    """

    done: set[int]

    def add(self, name: str, content: bytes) -> None:
        """Write a file with this name and content."""

    def close(self, finished: bool) -> None:
        """Leave the result in its place if the conversion is finished, and what goes on from here if it is not."""


def _check_recipe(stored: bytes | None, recipe: bytes, where: Path) -> None:
    """Raise ValueError unless a conversion that was begun there is this one."""
    try:
        known = json.loads(stored or b"null")
    except ValueError:
        known = None
    if known != json.loads(recipe):
        raise ValueError(f"{where} was begun with other settings ({known}): remove it, or name another destination")


def picture_file(index: int) -> str:
    """The name of the picture with this index."""
    return f"{index // PER_FOLDER:05}/img{index:08}.png"


def picture_indices(names: list[str]) -> set[int]:
    """The indices of the pictures among these names."""
    return {int(match[1]) for name in names if (match := _NAME.fullmatch(name))}


class FolderSink:
    """A folder of pictures.

    Args:
        path: the folder; it may hold what an earlier run of the same recipe wrote.
        recipe: how the pictures are made, in JSON.

    Raises:
        ValueError: the folder holds something else, or a finished data set.
    """

    def __init__(self, path: Path, recipe: bytes) -> None:
        self.path = path
        if (path / LABEL_FILE).exists():
            raise ValueError(f"{path} exists and is finished: remove it, or name another destination")
        path.mkdir(parents=True, exist_ok=True)
        found = [name.relative_to(path).as_posix() for name in path.rglob("*") if name.is_file()]
        if not found:
            self.add(RECIPE_FILE, recipe)
        _check_recipe((path / RECIPE_FILE).read_bytes() if (path / RECIPE_FILE).is_file() else None, recipe, path)
        self.done = picture_indices(found)

    def add(self, name: str, content: bytes) -> None:
        """Write a file with this name and content, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        write_file(path, content)

    def close(self, finished: bool) -> None:
        """Nothing is left to do, finished or not: every file is in its place."""


class ZipSink:
    """A zip of pictures, written beside its place and moved there at the end.

    Args:
        path: the zip; `NAME.part` beside it may hold what an earlier run of the same recipe wrote.
        recipe: how the pictures are made, in JSON.

    Raises:
        ValueError: the zip exists, or the part is of something else.
    """

    def __init__(self, path: Path, recipe: bytes) -> None:
        self.path = path
        self._partial = path.with_name(path.name + ".part")
        if path.exists():
            raise ValueError(f"{path} exists: remove it, or name another destination")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._partial.touch()
        with self._partial.open("r+b") as file:
            entries, first, end = _whole_entries(file)
            if entries:
                _check_recipe(first, recipe, self._partial)
            file.truncate(end)
        # To zipfile this is no archive yet, which it appends to; what lies there joins the directory it will write.
        self._archive = zipfile.ZipFile(self._partial, "a")
        self._archive.filelist.extend(entries)
        self._archive.NameToInfo.update({entry.filename: entry for entry in entries})
        self.done = picture_indices([entry.filename for entry in entries])
        if not entries:
            self.add(RECIPE_FILE, recipe)

    def add(self, name: str, content: bytes) -> None:
        """Write an entry with this name and content, unpacked.

        It has the oldest date that a zip knows, so that equal pictures give equal files.
        """
        self._archive.writestr(_entry(name), content)

    def close(self, finished: bool) -> None:
        """Move the zip to its place if it is finished."""
        self._archive.close()
        if finished:
            with self._partial.open("rb") as file:
                os.fsync(file.fileno())
            self._partial.replace(self.path)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.external_attr = FILE_MODE << 16
    return entry


def _whole_entries(file: IO[bytes]) -> tuple[list[zipfile.ZipInfo], bytes, int]:
    """The entries of a zip that were written whole, the content of the first, and where the last ends."""
    entries: list[zipfile.ZipInfo] = []
    first, end = b"", 0
    while len(head := file.read(_LOCAL_HEADER.size)) == _LOCAL_HEADER.size:
        signature, _, _, method, _, _, crc, packed_size, size, name_length, extra_length = _LOCAL_HEADER.unpack(head)
        if signature != _LOCAL_SIGNATURE or method != zipfile.ZIP_STORED or packed_size != size:
            break
        name = file.read(name_length + extra_length)[:name_length]
        content = file.read(size)
        if len(content) < size or zlib.crc32(content) != crc:
            break
        entry = _entry(name.decode("ascii", "replace"))
        entry.header_offset, entry.CRC, entry.compress_size, entry.file_size = end, crc, size, size
        first = first if entries else content
        entries.append(entry)
        end = file.tell()
    return entries, first, end


def open_sink(destination: Path, recipe: bytes) -> Sink:
    """Where the conversion of a recipe (in JSON) goes: a zip if the destination is called `.zip`, else a folder.

    Raises:
        ValueError: something else is there.
    """
    return ZipSink(destination, recipe) if destination.suffix.lower() == ".zip" else FolderSink(destination, recipe)
