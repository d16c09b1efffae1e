"""Images and factors in the arrays of `.npz`, `.npy` and `.h5` files, as dSprites and 3D Shapes are published."""

from __future__ import annotations

import functools
import math
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..._optional import require
from ..base import Dataset, Pixels
from ..damage import named_if_damaged
from ..limits import CHUNK_BYTES, MAX_ARRAY_BYTES, MAX_SIDE, MAX_TABLE_BYTES, check_ratio, check_size
from ..per_process import PerProcess
from .labels import finite_labels
from .mpi3d import MPI3D_FACTORS, mpi3d_factors

SUFFIXES = (".npz", ".npy", ".h5", ".hdf5")
# Names under which published files keep images and factors.
IMAGE_KEYS = ("imgs", "images")
FACTOR_KEYS = ("latents_classes", "labels", "factors")
_LOCAL_HEADER = 30  # bytes of a zip member before its name

Array = npt.NDArray[Any]


def _npy_header(file: IO[bytes], size: int, where: object) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, whether Fortran order, dtype and the position of the data in a file in numpy's format.

    Raises:
        ValueError: it is damaged, holds Python objects, or not as many bytes as its shape says.
    """
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{where} has version {version} of numpy's format, expected 1.0 or 2.0")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject:
        raise ValueError(f"{where} holds Python objects, expected numbers")
    start = file.tell()
    if math.prod(shape) * dtype.itemsize != size - start:
        raise ValueError(f"{where} holds {size - start} bytes of data, its header promises {dtype} {shape}")
    return shape, fortran, dtype, start


def read_npy(file: IO[bytes], size: int, where: object) -> Array:
    """The array in an open file of `size` bytes in numpy's format, unpacked into memory.

    Args:
        file: open for reading.
        size: bytes that it holds in all.
        where: what messages call it.

    Raises:
        ValueError: it is damaged, too large, or holds Python objects.
    """
    shape, fortran, dtype, start = _npy_header(file, size, where)
    check_size(size, MAX_ARRAY_BYTES, where)
    data = np.empty(size - start, np.uint8)
    for place in range(0, len(data), CHUNK_BYTES):
        part = file.read(min(CHUNK_BYTES, len(data) - place))
        data[place : place + len(part)] = np.frombuffer(part, np.uint8)
    return data.view(dtype).reshape(shape, order="F" if fortran else "C")


def _map_npy(path: Path, file: IO[bytes], offset: int, size: int, where: object) -> Array:
    """A map of an array in numpy's format that lies at `offset` of a file, so that it need not fit into memory."""
    shape, fortran, dtype, start = _npy_header(file, size, where)
    return np.memmap(path, dtype, "r", offset + start, shape, "F" if fortran else "C")


def _npz_member(path: Path, name: str) -> Array:
    """One array of an `.npz` file: mapped where it lies as it is, unpacked where it is packed."""
    where = path / name
    with named_if_damaged(where), zipfile.ZipFile(path) as archive, archive.open(name) as member:
        entry = archive.getinfo(name)
        if entry.compress_type != zipfile.ZIP_STORED:
            check_ratio(entry.file_size, entry.compress_size, where)
            return read_npy(member, entry.file_size, where)
        with path.open("rb") as raw:
            raw.seek(entry.header_offset)
            name_length, extra_length = struct.unpack("<26xHH", raw.read(_LOCAL_HEADER))
        offset = entry.header_offset + _LOCAL_HEADER + name_length + extra_length
        return _map_npy(path, member, offset, entry.file_size, where)


def _npy_file(path: Path) -> Array:
    with named_if_damaged(path), path.open("rb") as file:
        return _map_npy(path, file, 0, path.stat().st_size, path)


def _open_h5(path: Path) -> Any:
    h5py = require("h5py", "data")
    with named_if_damaged(path):
        return h5py.File(path, "r")


def _h5_member(path: Path, name: str) -> Any:
    file = _open_h5(path)
    with named_if_damaged(path):
        return file[name]


def _names_in(path: Path) -> list[str]:
    """Names of the arrays in a file."""
    if path.suffix.lower() == ".npy":
        return [""]
    if path.suffix.lower() != ".npz":
        h5py = require("h5py", "data")
        with named_if_damaged(path), _open_h5(path) as file:
            return [name for name in file if isinstance(file[name], h5py.Dataset)]
    with named_if_damaged(path), zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _member(path: Path, name: str) -> PerProcess[Any]:
    """The array of this name, opened when it is needed."""
    if path.suffix.lower() == ".npy":
        return PerProcess(functools.partial(_npy_file, path), survives_fork=True)
    if path.suffix.lower() == ".npz":
        return PerProcess(functools.partial(_npz_member, path, f"{name}.npy"), survives_fork=True)
    return PerProcess(functools.partial(_h5_member, path, name))


def _image_name(path: Path, names: list[str]) -> str:
    """The name of the array of images: a usual one, or that of the only array with three or four dimensions."""
    usual = [name for name in IMAGE_KEYS if name in names]
    found = usual or [name for name in names if len(_member(path, name).get().shape) in (3, 4)]
    if len(found) != 1 and not usual:
        expected = " or ".join(map(repr, IMAGE_KEYS))
        raise ValueError(f"{path} has no array of images: expected {expected}, it has {', '.join(names) or 'none'}")
    return found[0]


def _channels_first(shape: tuple[int, ...], where: object) -> bool:
    """Whether images [N, C, H, W] come with channels before rows; [N, H, W] count as that.

    Raises:
        ValueError: the shape tells neither order, or both.
    """
    first, last = (len(shape) == 3 or shape[1] in (1, 3)), (len(shape) == 4 and shape[3] in (1, 3))
    if len(shape) not in (3, 4) or first == last:
        raise ValueError(
            f"{where} has an array of shape {shape}, expected images [N, H, W], [N, H, W, C] or [N, C, H, W] of 1 or 3 "
            "channels"
        )
    return first


def _parts(images: Any) -> Iterator[Array]:
    step = max(1, CHUNK_BYTES // (math.prod(images.shape[1:]) * images.dtype.itemsize))
    for start in range(0, len(images), step):
        yield np.asarray(images[start : start + step])


def pixel_scale(images: Any, where: object) -> int:
    """What to multiply values with to have bytes, decided from the dtype and all values.

    Args:
        images: array or h5 data set, images first.
        where: what messages call it.

    Returns:
        1 for values from 0 to 255; 255 for values from 0 to 1, and for booleans.

    Raises:
        ValueError: values outside these ranges, NaN, or no numbers.
    """
    kind = images.dtype.kind
    if kind not in "buif":
        raise ValueError(f"{where} has images of {images.dtype}, expected numbers")
    if kind == "b":
        return 255
    largest = 0.0
    for part in _parts(images):
        low, high = part.min(), part.max()
        if not (low >= 0 and high <= (1 if kind == "f" else 255)):  # NaN compares as false
            expected = "0 to 1" if kind == "f" else "0 to 255"
            raise ValueError(
                f"{where} has {images.dtype} images with values from {low:g} to {high:g}, expected {expected}"
            )
        largest = max(largest, float(high))
        if kind == "u" and images.dtype.itemsize == 1 and largest > 1:
            return 1
    return 255 if kind == "f" or largest == 1 else 1


class ArrayImages(Dataset):
    """Square images from an array in a file, with the factors or labels beside them.

    Arrays are found under `imgs` or `images` (or are the only ones of three or four dimensions), factors [N, F] and
    classes [N] under `latents_classes`, `labels` or `factors`. Files of MPI3D, whose factors follow from the order of
    its images, are known by their name and number of images.

    Args:
        path: `.npz`, `.npy`, `.h5` or `.hdf5`.
        resolution: height and width that the images must have; None takes what the file has.

    Raises:
        ImportError: h5py is missing, which reads `.h5`.
        ValueError: the file is damaged or too large, or its arrays are no square images, or do not fit together.
    """

    def __init__(self, path: Path, resolution: int | None = None) -> None:
        self.name = str(path)
        names = _names_in(path)
        image_name = _image_name(path, names)
        self._images = _member(path, image_name)
        images = self._images.get()
        where = path / image_name if image_name else path
        self._channels_first, self._has_channels = _channels_first(images.shape, where), images.ndim == 4
        shape = images.shape[1:] if self._has_channels else (1, *images.shape[1:])
        self.num_channels, *size = shape if self._channels_first else (shape[2], *shape[:2])
        self._length = len(images)
        if not math.prod(images.shape) or size[0] != size[1] or resolution not in (None, size[0]):
            expected = "square ones" if resolution is None else f"{resolution}x{resolution}"
            raise ValueError(f"{where} has {len(images)} images of {size[1]}x{size[0]} pixels, expected {expected}")
        if size[0] > MAX_SIDE:
            raise ValueError(f"{where} has images of {size[0]} pixels, expected at most {MAX_SIDE}")
        self.resolution = size[0]
        with named_if_damaged(where):
            self._scale = pixel_scale(images, where)
        if self._scale != 1:
            self.notes = (f"values of {where} go from 0 to 1 ({images.dtype}): taken as black to white",)
        self._read_factors(path, next((name for name in FACTOR_KEYS if name in names), None))

    def _read_factors(self, path: Path, name: str | None) -> None:
        self._classes: npt.NDArray[np.int64] | None = None
        if name is None:
            self.factors = mpi3d_factors(len(self)) if "mpi3d" in path.stem.lower() else None
            self.factor_names = MPI3D_FACTORS if self.factors is not None else ()
            return
        where = path / name
        stored = _member(path, name).get()
        check_size(stored.nbytes, MAX_TABLE_BYTES, where)
        with named_if_damaged(where):
            values = np.asarray(stored[...])
        if values.dtype.kind not in "buif" or values.ndim not in (1, 2) or len(values) != len(self):
            raise ValueError(
                f"{where} must hold factors [{len(self)}, F] or classes [{len(self)}], "
                f"got {values.dtype} of shape {values.shape}"
            )
        finite_labels(values, where)
        if values.ndim == 2:
            self.factors = values
        elif values.dtype.kind == "f" or values.min() < 0:
            raise ValueError(f"{where} must hold classes as integers from 0 on, got {values.dtype}")
        else:
            self._classes = values.astype(np.int64)

    @property
    def labels(self) -> npt.NDArray[Any] | None:
        """The classes, else the factors as float32."""
        if self.factors is None:
            return self._classes
        return self.factors.astype(np.float32)

    def __len__(self) -> int:
        return self._length

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        rows, back = np.unique(self._checked(indices), return_inverse=True)  # h5 files are read in increasing order
        with named_if_damaged(self.name):
            values = np.asarray(self._images.get()[rows])[back]
        if not self._has_channels:
            values = values[:, None]
        elif not self._channels_first:
            values = values.transpose(0, 3, 1, 2)
        return torch.from_numpy(self._as_bytes(values))

    def _as_bytes(self, values: Array) -> Pixels:
        scaled = values if self._scale == 1 else np.round(values * np.float32(self._scale))
        return np.ascontiguousarray(scaled, dtype=np.uint8)
