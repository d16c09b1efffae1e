"""Where picture files lie: in a folder, a zip, or an LMDB of rosinality's program."""

from __future__ import annotations

import functools
import io
import os
import stat
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

from ..._optional import require
from ..damage import named_if_damaged
from ..limits import MAX_FILE_BYTES, check_size
from ..loading import WorkerDied, in_order
from ..per_process import PerProcess

LABEL_FILE = "dataset.json"
RECIPE_FILE = "convert.json"  # how `dataset convert` made the files beside it

# Formats that Pillow recognises without reading pixels, or reads by running another program.
NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


class Files(Protocol):
    """Picture files by name.

    Attributes:
        path: the folder or archive.
        left_out: why other files there are no pictures of the set, and how many.
        has_labels: whether a label file lies beside them.
    """

    path: Path
    left_out: Counter[str]
    has_labels: bool

    def names(self) -> list[str]:
        """Names of the pictures, sorted, with forward slashes."""

    def open(self, name: str) -> IO[bytes]:
        """Open the file with this name for reading.

        Raises:
            ValueError: it is too large for a picture.
        """


@functools.lru_cache(maxsize=1)
def picture_suffixes() -> frozenset[str]:
    """Suffixes, in lower case, of the files that Pillow reads."""
    pillow = require("PIL.Image", "train")
    pillow.init()
    readable = set(pillow.OPEN) - NO_PICTURES
    return frozenset(suffix for suffix, kind in pillow.registered_extensions().items() if kind in readable)


def _reason_to_leave_out(name: str) -> str | None:
    path = PurePosixPath(name)
    if any(part.startswith((".", "__MACOSX")) for part in path.parts):
        return "hidden"
    suffix = path.suffix.lower()
    return None if suffix in picture_suffixes() else suffix or "without suffix"


def _pictures(names: set[str], left_out: Counter[str]) -> list[str]:
    """Sorted names of the pictures; the others are counted."""
    found = []
    for name in sorted(names - {LABEL_FILE, RECIPE_FILE}):
        reason = _reason_to_leave_out(name)
        if reason is None:
            found.append(name)
        else:
            left_out[reason] += 1
    return found


class FolderFiles(Files):
    """The files below a folder, subfolders included; a folder that is linked to is entered once.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()
        names = {found.relative_to(path).as_posix() for found in self._regular_files()}
        self.has_labels = LABEL_FILE in names
        self._names = _pictures(names, self.left_out)

    def _regular_files(self) -> Iterator[Path]:
        """Every regular file; those of real folders before those behind links, so that names do not hang on links."""
        seen: set[tuple[int, int]] = set()
        waiting = [self.path]
        while waiting:
            links: list[Path] = []
            for start in waiting:
                for folder, folders, names in os.walk(start, onerror=_raise):
                    status = os.stat(folder)
                    if (status.st_dev, status.st_ino) in seen:
                        folders.clear()
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    links += [Path(folder, name) for name in sorted(folders) if os.path.islink(Path(folder, name))]
                    yield from self._regular(Path(folder), names)
            waiting = links

    def _regular(self, folder: Path, names: list[str]) -> Iterator[Path]:
        for name in names:
            path = folder / name
            try:
                regular = stat.S_ISREG(path.stat().st_mode)
            except OSError:
                regular = False
            if regular:
                yield path
            else:
                self.left_out["no regular file"] += 1

    def names(self) -> list[str]:
        return self._names

    def open(self, name: str) -> IO[bytes]:
        path = self.path / name
        check_size(path.stat().st_size, MAX_FILE_BYTES, path)
        return path.open("rb")


def _open_zip(path: Path) -> zipfile.ZipFile:
    with named_if_damaged(path, "a zip archive"):
        return zipfile.ZipFile(path)


class ZipFiles(Files):
    """The files in a zip archive, which stays open; several threads and processes may read from it.

    Args:
        path: the archive.

    Raises:
        ValueError: it is no zip archive.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()
        self._archive = PerProcess(functools.partial(_open_zip, path))
        names = {name for name in self._archive.get().namelist() if name and not name.endswith("/")}
        self.has_labels = LABEL_FILE in names
        self._names = _pictures(names, self.left_out)

    def names(self) -> list[str]:
        return self._names

    def open(self, name: str) -> IO[bytes]:
        archive = self._archive.get()
        check_size(archive.getinfo(name).file_size, MAX_FILE_BYTES, self.path / name)
        return archive.open(name)


def _raise(error: OSError) -> None:
    raise error


def _open_lmdb(path: Path) -> Any:
    lmdb = require("lmdb", "data")
    with named_if_damaged(path, "an LMDB"):
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, subdir=path.is_dir())
        return environment.begin(buffers=True)


def _lmdb_keys(path: Path, _: int) -> list[str]:
    """All keys of an LMDB; the last byte of every value is looked at."""
    keys = []
    with named_if_damaged(path, "an LMDB"):
        for key, value in _open_lmdb(path).cursor().iternext():
            value[-1:].tobytes()
            keys.append(bytes(key).decode("latin-1"))
    return keys


def _checked_lmdb_keys(path: Path) -> list[str]:
    """All keys of an LMDB, found in a process of its own: the library reads damaged files until they kill it."""
    try:
        return next(in_order(functools.partial(_lmdb_keys, path), [0], workers=1))
    except WorkerDied as error:
        raise ValueError(f"{path} cannot be read as an LMDB: it is damaged") from error


class LmdbFiles(Files):
    """The pictures in an LMDB as rosinality's `prepare_data.py` writes it: keys `SIZE-INDEX`, and `length`.

    Args:
        path: folder with `data.mdb`.
        resolution: which of its sizes; None takes the largest.

    Raises:
        ImportError: the package lmdb is missing.
        ValueError: no such database, or none of that size.
    """

    def __init__(self, path: Path, resolution: int | None = None) -> None:
        self.path = path
        self.left_out: Counter[str] = Counter()
        self.has_labels = False
        self._reading = PerProcess(functools.partial(_open_lmdb, path))
        found: dict[int, list[str]] = {}
        for key in _checked_lmdb_keys(path):
            size, _, index = key.partition("-")
            if size.isdecimal() and index.isdecimal() and len(size) < 6:
                found.setdefault(int(size), []).append(f"{size}-{index}")
        if not found:
            raise ValueError(f"{path} has no keys SIZE-INDEX, such as 256-00000, as rosinality's program writes them")
        wanted = max(found) if resolution is None else resolution
        if wanted not in found:
            sizes = ", ".join(map(str, sorted(found)))
            raise ValueError(f"{path} has pictures of {sizes} pixels, not of {wanted}")
        self._names = sorted(found[wanted], key=lambda name: (len(name), name))

    def names(self) -> list[str]:
        return self._names

    def open(self, name: str) -> IO[bytes]:
        value = self._reading.get().get(name.encode("latin-1"))
        if value is None:
            raise ValueError(f"{self.path} has no key {name} any more")
        check_size(len(value), MAX_FILE_BYTES, self.path / name)
        return io.BytesIO(value)
