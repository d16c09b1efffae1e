"""Turn any source of pictures into the zip or folder that StyleGAN's programs train from.

Pictures are PNG files `00000/img00000000.png`, numbered as in the source; `dataset.json` holds the labels and comes
last; `convert.json` tells how they were made and comes first, so that an interrupted conversion goes on where it ended.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy.typing as npt

from .._optional import require
from .base import Dataset, Source
from .formats.files import LABEL_FILE, RECIPE_FILE
from .formats.image_files import PictureFiles
from .formats.resizing import FILTERS, crop_square, resize, side_after_crop
from .limits import MAX_SIDE
from .loading import default_workers, in_order

PER_FOLDER = 1000
PNG_LEVEL = 1  # of zlib: a higher one takes several times as long for a few per cent
FILE_MODE = 0o644
_NAME = re.compile(r"\d{5}/img(\d{8})\.png")
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_LOCAL_SIGNATURE = b"PK\3\4"


@dataclass(frozen=True)
class Recipe:
    """How pictures are converted.

    Attributes:
        source: what the user called it.
        num_pictures: how many it has.
        resolution: height and width of the results.
        crop: "center", "celeba", the side of a square in the middle, or None.
        resize: "lanczos" or "box".
        background: what transparent pixels show.
    """

    source: str
    num_pictures: int
    resolution: int
    crop: str | int | None
    resize: str
    background: str


@dataclass(frozen=True)
class Progress:
    """State of a conversion.

    Attributes:
        done: pictures dealt with so far, of earlier runs too.
        damaged: what was wrong with those that were left out in this run.
    """

    done: int
    damaged: tuple[str, ...]


def make_recipe(
    source: Dataset | PictureFiles, resolution: int | None, crop: str | int | None, kind: str, background: str
) -> Recipe:
    """The recipe for a source, with its resolution settled.

    Args:
        source: the pictures.
        resolution: height and width of the results; None keeps what the crop leaves, which must be the same for all.
        crop: "center", "celeba", the side of a square in the middle, or None.
        kind: "lanczos" or "box".
        background: what transparent pixels show.

    Raises:
        ValueError: a picture does not suit the crop, or sizes differ and no resolution is given.
    """
    if kind not in FILTERS:
        raise ValueError(f"resize must be one of {', '.join(FILTERS)}, got {kind!r}")
    sides = []
    for index, (width, height) in enumerate(_sizes(source)):
        try:
            sides.append(side_after_crop(width, height, crop))
        except ValueError as error:
            raise ValueError(f"{source.picture_name(index)} cannot be cut: {error}") from error
        if resolution is None and sides[-1] != sides[0]:
            raise ValueError(
                f"{source.picture_name(index)} gives {sides[-1]}x{sides[-1]} pixels, {source.picture_name(0)} "
                f"{sides[0]}x{sides[0]}: give --resolution"
            )
    side = sides[0] if resolution is None else resolution
    if not 1 <= side <= MAX_SIDE:
        raise ValueError(f"resolution must lie in 1 to {MAX_SIDE}, got {side}")
    return Recipe(source.name, len(source), side, crop, kind, background)


def _sizes(source: Dataset | PictureFiles) -> list[tuple[int, int]]:
    """Width and height of the pictures; one entry stands for all of a data set."""
    if isinstance(source, Dataset):
        return [(source.resolution, source.resolution)]
    return [(header.width, header.height) for header in source.headers]


def _file_name(index: int) -> str:
    return f"{index // PER_FOLDER:05}/img{index:08}.png"


def _png(source: Source, recipe: Recipe, index: int) -> bytes:
    pixels = resize(crop_square(source.picture(index), recipe.crop), recipe.resolution, recipe.resize)
    buffer = io.BytesIO()
    image = require("PIL.Image", "train").fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "PNG", compress_level=PNG_LEVEL)
    return buffer.getvalue()


def _png_or_damage(source: Source, recipe: Recipe, index: int) -> bytes | str:
    try:
        return _png(source, recipe, index)
    except ValueError as error:
        return str(error)


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


def _check_recipe(stored: bytes | None, recipe: Recipe, where: Path) -> None:
    """Raise ValueError unless a conversion that was begun there is this one."""
    try:
        known = json.loads(stored or b"null")
    except ValueError:
        known = None
    if known != dataclasses.asdict(recipe):
        raise ValueError(f"{where} was begun with other settings ({known}): remove it, or name another destination")


def _indices(names: list[str]) -> set[int]:
    return {int(match[1]) for name in names if (match := _NAME.fullmatch(name))}


class FolderSink:
    """A folder of pictures.

    Args:
        path: of the folder; it may hold what an earlier run of the same recipe wrote.
        recipe: of the conversion.

    Raises:
        ValueError: the folder holds something else, or a finished data set.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path = path
        if (path / LABEL_FILE).exists():
            raise ValueError(f"{path} exists and is finished: remove it, or name another destination")
        path.mkdir(parents=True, exist_ok=True)
        found = [name.relative_to(path).as_posix() for name in path.rglob("*") if name.is_file()]
        if not found:
            self.add(RECIPE_FILE, _recipe_bytes(recipe))
        _check_recipe((path / RECIPE_FILE).read_bytes() if (path / RECIPE_FILE).is_file() else None, recipe, path)
        self.done = _indices(found)

    def add(self, name: str, content: bytes) -> None:
        """Write a file with this name and content, whole or not at all."""
        path = self.path / name
        path.parent.mkdir(exist_ok=True)
        partial = path.with_name(path.name + ".part")
        partial.write_bytes(content)
        partial.replace(path)

    def close(self, finished: bool) -> None:
        """Nothing is left to do, finished or not: every file is in its place."""


class ZipSink:
    """A zip of pictures, written beside its place and moved there at the end.

    Args:
        path: of the zip; `NAME.part` beside it may hold what an earlier run of the same recipe wrote.
        recipe: of the conversion.

    Raises:
        ValueError: the zip exists, or the part is of something else.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
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
        self.done = _indices([entry.filename for entry in entries])
        if not entries:
            self.add(RECIPE_FILE, _recipe_bytes(recipe))

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


def _recipe_bytes(recipe: Recipe) -> bytes:
    return json.dumps(dataclasses.asdict(recipe), indent=2).encode()


def open_sink(destination: Path, recipe: Recipe) -> Sink:
    """Where the conversion of a recipe goes: a zip if the destination is called `.zip`, else a folder.

    Raises:
        ValueError: something else is there.
    """
    return ZipSink(destination, recipe) if destination.suffix.lower() == ".zip" else FolderSink(destination, recipe)


def convert(
    source: Source,
    destination: Path,
    recipe: Recipe,
    labels: npt.NDArray[Any] | None = None,
    skip_bad: bool = False,
    workers: int | None = None,
) -> Iterator[Progress]:
    """Write the pictures of a source, and say after each how far it is; go on where an earlier run ended.

    Args:
        source: the pictures.
        destination: a `.zip`, else a folder.
        recipe: from `make_recipe`.
        labels: of the pictures, [N] classes or [N, L] vectors; None writes none.
        skip_bad: leave out damaged pictures, instead of raising.
        workers: processes that read and write PNGs; None means up to 4.

    Raises:
        ValueError: something else is at the destination, or a picture is damaged.
    """
    sink = open_sink(destination, recipe)
    finished = False
    try:
        written = set(sink.done)
        # What earlier runs of a zip passed over was damaged; a folder may have holes of its own: both are tried again.
        waiting = [index for index in range(len(source)) if index not in written]
        damaged: list[str] = []
        yield Progress(len(written), ())
        results = in_order(
            functools.partial(_png_or_damage, source, recipe),
            waiting,
            default_workers() if workers is None else workers,
        )
        for count, (index, result) in enumerate(zip(waiting, results, strict=True), len(written) + 1):
            if isinstance(result, bytes):
                sink.add(_file_name(index), result)
                written.add(index)
            elif skip_bad:
                damaged.append(result)
            else:
                raise ValueError(f"{result}; --skip-bad (skip_bad) leaves such pictures out")
            yield Progress(count, tuple(damaged))
        if not written:
            raise ValueError(f"none of the {len(source)} pictures of {source.name} can be read")
        sink.add(LABEL_FILE, _label_bytes(sorted(written), labels))
        finished = True
    finally:
        sink.close(finished)


def _label_bytes(indices: list[int], labels: npt.NDArray[Any] | None) -> bytes:
    by_name = None if labels is None else [[_file_name(index), labels[index].tolist()] for index in indices]
    return json.dumps({"labels": by_name}).encode()
