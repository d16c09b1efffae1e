"""Turn any source of pictures into the zip or folder that StyleGAN's programs train from."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from .._optional import require
from .base import Dataset, Source
from .formats.files import LABEL_FILE
from .formats.image_files import PictureFiles
from .formats.resizing import FILTERS, crop_square, resize, side_after_crop
from .limits import MAX_SIDE
from .loading import default_workers, in_order
from .sinks import open_sink, picture_file

PNG_LEVEL = 1  # of zlib: a higher one takes several times as long for a few per cent


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
        labels: the pictures' classes [N] or vectors [N, L]; None writes none.
        skip_bad: leave out damaged pictures, instead of raising.
        workers: processes that read and write PNGs; None means up to 4.

    Raises:
        ValueError: something else is at the destination, or a picture is damaged.
    """
    sink = open_sink(destination, json.dumps(dataclasses.asdict(recipe), indent=2).encode())
    finished = False
    try:
        written = set(sink.done)
        # What earlier runs of a zip passed over was damaged; a folder may have holes of its own: both are tried again.
        waiting = [index for index in range(len(source)) if index not in written]
        damaged: list[str] = []
        yield Progress(len(written), ())
        convert_one = functools.partial(_png_or_damage, source, recipe)
        with contextlib.closing(
            in_order(convert_one, waiting, default_workers() if workers is None else workers)
        ) as results:
            for count, (index, result) in enumerate(zip(waiting, results, strict=True), len(written) + 1):
                if isinstance(result, bytes):
                    sink.add(picture_file(index), result)
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
    by_name = None if labels is None else [[picture_file(index), labels[index].tolist()] for index in indices]
    return json.dumps({"labels": by_name}).encode()
