"""SmallNORB: 50 toys under 6 lightings, 9 elevations and 18 azimuths, from the files of LeCun, Huang and Bottou (2004).

Source: the description of the "binary matrix" format on the data set's page. A part (`training` or `testing`) is a file
`...-dat.mat` of images [N, 2, 96, 96], one for each camera, `...-cat.mat` of categories [N] and `...-info.mat` of
instance, elevation, azimuth and lighting [N, 4].
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import Dataset
from ..limits import MAX_GZIP_BYTES, check_size, is_gzipped, read_gzipped
from .resizing import resize

DEFAULT_RESOLUTION = 64
TYPES: dict[int, np.dtype[Any]] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}
MOST_DIMENSIONS = 4
FEWEST_SIZES = 3  # the header has three sizes even where there are fewer dimensions


def parts_in(folder: Path) -> list[Path]:
    """The files of images in a folder; testing before training, by their names."""
    named = [path for path in folder.iterdir() if path.name.startswith("smallnorb") and "-dat.mat" in path.name]
    return sorted(path for path in named if path.is_file())


def _beginning(path: Path, size: int) -> npt.NDArray[np.uint8]:
    if is_gzipped(path):
        return read_gzipped(path, size)
    check_size(size, MAX_GZIP_BYTES, path)
    return np.fromfile(path, np.uint8, size)


def read_matrix(path: Path) -> npt.NDArray[Any]:
    """The array in the binary matrix file at `path`, gzipped or not.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, too large, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    head = _beginning(path, 4 * (2 + MOST_DIMENSIONS))
    numbers = head[: len(head) // 4 * 4].view("<i4")
    if len(numbers) < 2 or int(numbers[0]) not in TYPES or not 1 <= numbers[1] <= MOST_DIMENSIONS:
        raise ValueError(
            f"{path} is not a binary matrix of bytes or integers: it begins with {head[:8].tobytes().hex(' ')}"
        )
    dtype, dimensions = TYPES[int(numbers[0])], int(numbers[1])
    shape = tuple(int(size) for size in numbers[2 : 2 + dimensions])
    start = 4 * (2 + max(dimensions, FEWEST_SIZES))
    size = math.prod(shape) * dtype.itemsize
    if min(shape) < 0:
        raise ValueError(f"{path} promises an array of shape {shape}")
    content = _beginning(path, start + size + 1)
    if len(content) != start + size:
        raise ValueError(f"{path} holds {len(content) - start} bytes of data, its header promises {dtype} {shape}")
    return content[start:].view(dtype).reshape(shape)


class SmallNORB(Dataset):
    """SmallNORB as seen by the left camera: category, elevation, azimuth, lighting and instance of a toy.

    Both parts are read where the folder has both. The images are held in memory, resampled (Lanczos) where they are not
    of the stored 96 pixels, as papers use 64.

    Args:
        folder: with the `smallnorb-...-dat.mat`, `-cat.mat` and `-info.mat` files, gzipped or not.
        resolution: height and width of the images; None means 64.

    Raises:
        ValueError: a file is missing or damaged, or files do not fit together.
    """

    num_channels = 1
    factor_names = ("category", "elevation", "azimuth", "lighting", "instance")

    def __init__(self, folder: Path, resolution: int | None = None) -> None:
        self.name = str(folder)
        self.resolution = DEFAULT_RESOLUTION if resolution is None else resolution
        parts = parts_in(folder)
        if not parts:
            raise ValueError(f"{folder} holds no smallnorb-...-dat.mat")
        read = [self._read_part(path) for path in parts]
        self._images = np.concatenate([images for images, _ in read])
        self.factors = np.concatenate([factors for _, factors in read])

    def _read_part(self, path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """Images [N, R, R] and factors [N, 5] of one part."""
        images, categories, info = (
            read_matrix(path.with_name(path.name.replace("-dat.", f"-{kind}."))) for kind in ("dat", "cat", "info")
        )
        count = len(images)
        if images.ndim != 4 or images.shape[2] != images.shape[3] or images.dtype != np.uint8:
            raise ValueError(f"{path} must hold images uint8 [N, 2, S, S], got {images.dtype} {images.shape}")
        if categories.shape != (count,) or info.shape != (count, 4):
            raise ValueError(
                f"the files beside {path} must hold categories [{count}] and info [{count}, 4], "
                f"got {categories.shape} and {info.shape}"
            )
        instance, elevation, azimuth, lighting = info.T
        left = [resize(image[..., None], self.resolution, "lanczos")[..., 0] for image in images[:, 0]]
        # Azimuths are stored as even numbers, a unit of ten degrees each.
        factors = np.stack([categories, elevation, azimuth // 2, lighting, instance], axis=1)
        return np.stack(left), factors.astype(np.int64)

    def __len__(self) -> int:
        return len(self._images)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        return torch.from_numpy(self._images[self._checked(indices)][:, None])
