"""Images in the idx-ubyte format of MNIST, plain or gzipped."""

from __future__ import annotations

import functools
import math
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import Dataset
from ..limits import is_gzipped, read_gzipped
from ..per_process import PerProcess

UNSIGNED_BYTE = 8
MOST_DIMENSIONS = 3


def _head(path: Path, size: int) -> bytes:
    """The first bytes of a file, unpacked; none of a damaged one."""
    if not is_gzipped(path):
        with path.open("rb") as file:
            return file.read(size)
    try:
        return read_gzipped(path, size).tobytes()
    except ValueError:
        return b""


def holds_idx(path: Path, dimensions: int) -> bool:
    """Whether the file at `path` begins like an idx-ubyte file, gzipped or not, of so many dimensions."""
    return path.is_file() and _head(path, 4) == bytes([0, 0, UNSIGNED_BYTE, dimensions])


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The unsigned bytes in the idx-ubyte file at `path`: a map of a plain file, unpacked from a gzipped one.

    Raises:
        ValueError: the file is damaged or too large, or its size is not the one that its header gives.
    """
    head = _head(path, 4 + 4 * MOST_DIMENSIONS)
    if len(head) < 4 or head[:3] != bytes([0, 0, UNSIGNED_BYTE]) or not len(head) >= 4 + 4 * head[3] > 4:
        raise ValueError(f"{path} is not an idx-ubyte file: it begins with {head[:4].hex(' ')}")
    shape = struct.unpack_from(f">{head[3]}I", head, 4)
    start, size = 4 + 4 * len(shape), math.prod(shape)
    packed = is_gzipped(path)
    values = read_gzipped(path, start + size + 1) if packed else np.memmap(path, np.uint8, mode="r")
    if values.size - start != size:
        promised = "x".join(map(str, shape))
        raise ValueError(f"{path} does not hold the {promised} values that its header promises ({values.size - start})")
    return values[start:].reshape(shape)


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
    """Grey images from an idx-ubyte file; labels from the label file beside it, if there is one.

    Images whose size is not a power of two get a black margin up to the next one, as MNIST's 28 pixels to 32, unless
    `resolution` asks for the stored size.

    Args:
        path: the file of images.
        resolution: height and width, the stored one or the next power of two; None takes that.

    Raises:
        ValueError: the file is damaged, or its images are not square or do not fit `resolution`.
    """

    num_channels = 1

    def __init__(self, path: Path, resolution: int | None = None) -> None:
        self.name = str(path)
        self._images = PerProcess(functools.partial(read_idx, path), survives_fork=True)
        images = self._images.get()
        if images.ndim != 3 or not images.size:
            raise ValueError(f"{path} must hold images [N, H, W], got an array of shape {images.shape}")
        height, width = images.shape[1:]
        padded = 1 << (height - 1).bit_length()
        if height != width or resolution not in (None, height, padded):
            expected = "square ones" if resolution is None else f"{resolution}x{resolution}"
            raise ValueError(f"{path} has images of {width}x{height} pixels, expected {expected}")
        self.resolution = resolution or padded
        self._length, self._margin = len(images), (self.resolution - height) // 2
        self._label_path = _label_file_of(path)

    @functools.cached_property
    def labels(self) -> npt.NDArray[np.int64] | None:
        """The classes in the label file beside the images.

        Raises:
            ValueError: the file is damaged or has another number of labels.
        """
        if self._label_path is None:
            return None
        labels = read_idx(self._label_path)
        if len(labels) != len(self):
            raise ValueError(f"{self._label_path} has {len(labels)} labels, expected {len(self)} as in {self.name}")
        return labels.astype(np.int64)

    def __len__(self) -> int:
        return self._length

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        stored = self._images.get()[self._checked(indices)]
        images = np.zeros((len(stored), 1, self.resolution, self.resolution), np.uint8)
        rows = slice(self._margin, self._margin + stored.shape[1])
        images[:, 0, rows, rows] = stored
        return torch.from_numpy(images)
