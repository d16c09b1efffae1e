"""Images in the idx-ubyte format of MNIST, plain or gzipped."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import Dataset

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 8


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        if file.read(2) != GZIP_MAGIC:
            file.seek(0)
            return file.read(4)
    try:
        with gzip.open(path) as file:
            return file.read(4)
    except (OSError, EOFError, zlib.error):
        return b""


def holds_idx(path: Path, dimensions: int) -> bool:
    """Whether a file begins like an idx-ubyte file, gzipped or not, of so many dimensions."""
    return path.is_file() and _head(path) == bytes([0, 0, UNSIGNED_BYTE, dimensions])


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of unsigned bytes in an idx-ubyte file.

    Raises:
        ValueError: the file is damaged, or its size is not the one that its header gives.
    """
    raw = path.read_bytes()
    if raw.startswith(GZIP_MAGIC):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} cannot be unpacked: {error}") from error
    if len(raw) < 4 or raw[:3] != bytes([0, 0, UNSIGNED_BYTE]) or len(raw) < 4 + 4 * raw[3]:
        raise ValueError(f"{path} is not an idx-ubyte file: it begins with {raw[:4].hex(' ')}")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    values = np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape))
    if values.size != math.prod(shape):
        raise ValueError(f"{path} holds {values.size} values, its header promises {'x'.join(map(str, shape))}")
    return values.reshape(shape)


def image_file_in(folder: Path) -> Path | None:
    """The idx file of training images in a folder; the only image file, if none is named so; else None.

    Raises:
        ValueError: there are several, and none is named `train...`.
    """
    found = [path for path in sorted(folder.iterdir()) if "ubyte" in path.name and holds_idx(path, 3)]
    training = [path for path in found if path.name.startswith("train")]
    if len(found) > 1 and not training:
        raise ValueError(f"{folder} holds several image files, name one: {', '.join(path.name for path in found)}")
    return next(iter(training or found), None)


def _label_file_of(images: Path) -> Path | None:
    plain = images.name.removesuffix(".gz").replace("images", "labels").replace("idx3", "idx1")
    candidates = [images.with_name(plain), images.with_name(plain + ".gz")]
    return next((path for path in candidates if path != images and holds_idx(path, 1)), None)


class IdxImages(Dataset):
    """Grey images from an idx-ubyte file, held in memory; labels from the label file beside it, if there is one.

    Images whose size is not a power of two get a black margin up to the next one, as MNIST's 28 pixels to 32, unless
    `resolution` asks for the stored size.

    Raises:
        ValueError: the file is damaged, its images are not square or do not fit `resolution`, or it has another number
            of labels than of images.
    """

    num_channels = 1

    def __init__(self, path: Path, resolution: int | None = None) -> None:
        self.name = str(path)
        images = read_idx(path)
        if images.ndim != 3 or not images.size:
            raise ValueError(f"{path} must hold images [N, H, W], got an array of shape {images.shape}")
        height, width = images.shape[1:]
        padded = 1 << (height - 1).bit_length()
        if height != width or resolution not in (None, height, padded):
            expected = "square ones" if resolution is None else f"{resolution}x{resolution}"
            raise ValueError(f"{path} has images of {width}x{height} pixels, expected {expected}")
        self.resolution = resolution or padded
        before = (self.resolution - height) // 2
        after = self.resolution - height - before
        self._images = np.pad(images, ((0, 0), (before, after), (before, after)))
        self.labels = self._read_labels(_label_file_of(path))

    def _read_labels(self, path: Path | None) -> npt.NDArray[np.int64] | None:
        if path is None:
            return None
        labels = read_idx(path)
        if len(labels) != len(self):
            raise ValueError(f"{path} has {len(labels)} labels, expected {len(self)} as in {self.name}")
        return labels.astype(np.int64)

    def __len__(self) -> int:
        return len(self._images)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        return torch.from_numpy(self._images[self._checked(indices)][:, None])
