"""Data sets with known factors: the rendered ones, and the files that dSprites and 3D Shapes are published in."""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..._optional import require
from ...data import RenderedDataset, open_dataset
from .factors import FactorData, Ints

# Names under which published files keep images and factors.
IMAGE_KEYS = ("imgs", "images")
FACTOR_KEYS = ("latents_classes", "labels", "factors")


class FactorFile:
    """Images and their factors from a file.

    Attributes:
        factor_sizes: number of values of each factor. Values are numbered in increasing order.
        complete: whether every combination of factors has an image. FactorVAE and BetaVAE need that.

    Args:
        images: array or h5 data set [N, H, W] or [N, H, W, C], uint8; 0 and 1 stand for black and white if no other
            value is in the first image.
        factors: values [N, F].
        name: what messages call it.

    Raises:
        ValueError: arrays that do not fit together.
    """

    def __init__(self, images: Any, factors: npt.ArrayLike, name: str = "data") -> None:
        values = np.asarray(factors)
        if values.ndim != 2 or len(values) != len(images) or not len(values):
            raise ValueError(
                f"{name}: factors must be [N, F] for images {tuple(images.shape)}, got {tuple(values.shape)}"
            )
        if images.ndim not in (3, 4) or images.dtype != np.uint8:
            raise ValueError(
                f"{name}: images must be uint8 [N, H, W] or [N, H, W, C], got {images.dtype} {tuple(images.shape)}"
            )
        self._images, self.name = images, name
        columns = [np.unique(column, return_inverse=True) for column in values.T]
        self.factor_sizes = tuple(len(found) for found, _ in columns)
        self._factors = np.stack([indices for _, indices in columns], axis=1)
        self._row_of = np.full(int(np.prod(self.factor_sizes)), -1, dtype=np.int64)
        self._row_of[self._cells(self._factors)] = np.arange(len(values))
        self.complete = bool((self._row_of >= 0).all())
        self._scale = 255 if np.asarray(images[0]).max() <= 1 else 1

    def _cells(self, factors: Ints) -> Ints:
        cells = np.ravel_multi_index(tuple(factors.T), self.factor_sizes)
        return np.asarray(cells, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._factors)

    def draw_factors(self, num: int, rng: np.random.RandomState) -> Ints:
        """Factors [num, F]: each drawn by itself in a complete grid, those of random images otherwise."""
        if not self.complete:
            return self._factors[rng.randint(len(self), size=num)]
        return np.stack([rng.randint(size, size=num) for size in self.factor_sizes], axis=1)

    def images(self, factors: npt.ArrayLike) -> Tensor:
        """Images uint8 [B, C, H, W] of factor indices [B, F].

        Raises:
            ValueError: a combination that the file does not have.
        """
        rows = self._row_of[self._cells(np.asarray(factors))]
        if (rows < 0).any():
            missing = np.asarray(factors)[rows < 0][0].tolist()
            raise ValueError(
                f"{self.name} has no image of the factors {missing}; metrics that hold a factor fixed (factor_vae, "
                "beta_vae) need every combination"
            )
        return self.images_at(rows)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        """Images uint8 [B, C, H, W] of rows [B] of the file."""
        rows, back = np.unique(np.asarray(indices), return_inverse=True)  # h5 files are read in increasing order
        images = np.asarray(self._images[rows])[back] * np.uint8(self._scale)
        tensor = torch.from_numpy(images)
        return tensor.unsqueeze(1) if tensor.ndim == 3 else tensor.permute(0, 3, 1, 2).contiguous()


def open_factor_data(spec: str | os.PathLike[str], resolution: int | None = None) -> FactorData:
    """Open a data set with known factors.

    Args:
        spec: "shapes3d" or "dsprites" (rendered), or a `.npz` file (as dSprites is published) or `.h5` file (as
            3D Shapes is) with images under `imgs` or `images` and factors under `latents_classes`, `labels` or
            `factors`.
        resolution: of rendered images; None takes their default. Files have their own.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a data set without factors, or a file without the arrays.
    """
    path = Path(os.fspath(spec))
    if path.suffix.lower() in (".npz", ".h5", ".hdf5"):
        if not path.is_file():
            raise FileNotFoundError(f"no such data file: {str(path)!r}")
        if resolution is not None:
            raise ValueError(f"{path.name} has a resolution of its own; got resolution={resolution}")
        return _open_npz(path) if path.suffix.lower() == ".npz" else _open_h5(path)
    data = open_dataset(spec, resolution)
    if not isinstance(data, RenderedDataset):
        raise ValueError(
            f"the factors of {os.fspath(spec)!r} are not known; expected 'shapes3d', 'dsprites', or a .npz or .h5 file "
            "with images and factors"
        )
    return data


def _pick(names: Any, keys: tuple[str, ...], path: Path) -> str:
    found = [key for key in keys if key in names]
    if not found:
        raise ValueError(
            f"{path.name} has no array {' or '.join(map(repr, keys))}; it has {', '.join(names) or 'none'}"
        )
    return found[0]


def _open_npz(path: Path) -> FactorFile:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files if key in (*IMAGE_KEYS, *FACTOR_KEYS)}
            names = list(file.files)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    images, factors = (arrays[_pick(names, keys, path)] for keys in (IMAGE_KEYS, FACTOR_KEYS))
    return FactorFile(images, factors, path.name)


def _open_h5(path: Path) -> FactorFile:
    h5py = require("h5py", "metrics")
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path.name} cannot be read: {error}") from error
    names = list(file.keys())
    images, factors = (file[_pick(names, keys, path)] for keys in (IMAGE_KEYS, FACTOR_KEYS))
    return FactorFile(images, factors[:], path.name)
