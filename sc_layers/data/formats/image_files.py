"""Images that lie as files in a folder or in a zip, with the labels of a `dataset.json` if there is one."""

from __future__ import annotations

import contextlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..._optional import require
from ..base import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = npt.NDArray[np.uint8]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")
LABEL_FILE = "dataset.json"

GREY_MODES = {"1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}

CELEBA_SIZE = (178, 218)
CELEBA_ROWS, CELEBA_COLUMNS = slice(57, 185), slice(25, 153)
CELEBA_CROP = 128

# What Pillow and zipfile raise for a file that is damaged or no image at all.
DAMAGED = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)


class Files(Protocol):
    """Named files in a folder or archive."""

    path: Path

    def names(self) -> list[str]:
        """Paths of all files relative to the root, with forward slashes."""

    def open(self, name: str) -> IO[bytes]: ...


class FolderFiles:
    """The files below a folder, subfolders included."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return [
            (Path(folder) / name).relative_to(self.path).as_posix()
            for folder, _, names in os.walk(self.path, onerror=_raise)
            for name in names
        ]

    def open(self, name: str) -> IO[bytes]:
        return (self.path / name).open("rb")


class ZipFiles:
    """The files in a zip archive, which stays open; several threads may read from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{path} cannot be read as a zip archive: {error}") from error

    def names(self) -> list[str]:
        return [entry.filename for entry in self._archive.infolist() if not entry.is_dir()]

    def open(self, name: str) -> IO[bytes]:
        return self._archive.open(name)


def _raise(error: OSError) -> None:
    raise error


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


class ImageFiles(Dataset):
    """Square images of one size from PNG, JPEG, BMP, WebP or TIFF files, decoded on request.

    The headers of all files are read at once, so that a file that does not fit is named before anything starts. The
    images are grey if all files are, else RGB (palettes count as colour); alpha is dropped, 16-bit grey loses its lower
    8 bits, any other colour space is converted to RGB. Hidden files are left out; the order is that of sorted names.

    Args:
        files: where they lie.
        resolution: height and width that every image must have; None takes those of the first.
        crop: "celeba" cuts rows 57 to 184 and columns 25 to 152 out of images of 178x218 pixels, as the authors do.

    Raises:
        ImportError: Pillow is missing.
        ValueError: there is no image; one is unreadable, not square or of another size; labels do not fit.
    """

    decodes = True

    def __init__(self, files: Files, resolution: int | None = None, crop: str | None = None) -> None:
        if crop not in (None, "celeba"):
            raise ValueError(f'crop must be "celeba" or None, got {crop!r}')
        if crop and resolution not in (None, CELEBA_CROP):
            raise ValueError(f"the celeba crop has {CELEBA_CROP}x{CELEBA_CROP} pixels, got resolution {resolution}")
        self._pillow = require("PIL.Image", "train")
        self._files = files
        self.name = str(files.path)
        self.crop = crop
        all_names = files.names()
        self._names = sorted(filter(_is_image, all_names))
        if not self._names:
            raise ValueError(f"{files.path} holds no images: expected files ending in {', '.join(SUFFIXES)}")
        headers = [self._header(name) for name in self._names]
        self.resolution = CELEBA_CROP if crop else headers[0][0][0] if resolution is None else resolution
        self._check(headers)
        self.num_channels = 1 if all(mode in GREY_MODES for _, mode in headers) else 3
        self.labels = _read_labels(files, self._names) if LABEL_FILE in all_names else None

    @contextlib.contextmanager
    def _opened(self, name: str) -> Iterator[Image]:
        """Open an image file; what goes wrong while it is open is told with its name."""
        try:
            with self._files.open(name) as file, self._pillow.open(file) as image:
                yield image
        except (*DAMAGED, self._pillow.DecompressionBombError) as error:
            raise ValueError(f"{self._files.path / name} cannot be read as an image: {error}") from error

    def _header(self, name: str) -> tuple[tuple[int, int], str]:
        with self._opened(name) as image:
            return image.size, image.mode

    def _check(self, headers: list[tuple[tuple[int, int], str]]) -> None:
        expected = CELEBA_SIZE if self.crop else (self.resolution, self.resolution)
        for name, (size, mode) in zip(self._names, headers, strict=True):
            where = self._files.path / name
            if size != expected:
                raise ValueError(f"{where} has {size[0]}x{size[1]} pixels, expected {expected[0]}x{expected[1]}")
            if mode not in GREY_MODES | COLOUR_MODES:
                raise ValueError(f"{where} has pixels of mode {mode!r}, expected 8-bit or 16-bit images")

    def _decode(self, name: str) -> Pixels:
        """Pixels [H, W, C] of one file."""
        with self._opened(name) as image:
            if image.mode.startswith("I"):
                image = self._pillow.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
            pixels = np.asarray(image.convert("L" if self.num_channels == 1 else "RGB"))
        if self.crop:
            pixels = pixels[CELEBA_ROWS, CELEBA_COLUMNS]
        return pixels.reshape(self.resolution, self.resolution, self.num_channels)

    def __len__(self) -> int:
        return len(self._names)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        checked = self._checked(indices)
        images = np.empty((len(checked), self.num_channels, self.resolution, self.resolution), np.uint8)
        for image, index in zip(images, checked, strict=True):
            image[:] = self._decode(self._names[index]).transpose(2, 0, 1)
        return torch.from_numpy(images)


def _read_labels(files: Files, names: list[str]) -> npt.NDArray[Any] | None:
    """Labels in the order of `names`: `{"labels": [[name, class or vector], ...]}`, or null for none."""
    where = files.path / LABEL_FILE
    try:
        with files.open(LABEL_FILE) as file:
            entries = json.load(file).get("labels")
        by_name = {name.replace("\\", "/"): label for name, label in entries or []}
    except (*DAMAGED, AttributeError, TypeError) as error:
        raise ValueError(f'{where} must hold {{"labels": [[file name, label], ...]}}: {error}') from error
    if not by_name:
        return None
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(f"{where} has no label for {missing[0]} ({len(missing)} of {len(names)} images lack one)")
    try:
        labels = np.array([by_name[name] for name in names])
    except ValueError as error:
        raise ValueError(f"{where} mixes labels of different lengths") from error
    if labels.ndim > 2 or not np.issubdtype(labels.dtype, np.number):
        raise ValueError(f"{where} must give every image a class number or a list of numbers, got {labels.dtype}")
    is_class = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    return labels.astype(np.int64) if is_class else labels.astype(np.float32).reshape(len(names), -1)
