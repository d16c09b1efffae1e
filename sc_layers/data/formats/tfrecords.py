"""The authors' multi-resolution TFRecord folders, read without TensorFlow.

Source: the layout that their `dataset_tool` writes. `NAME-rLL.tfrecords` holds images of 2^LL pixels, one
`tf.train.Example` a record with the integers `shape` (channels, height, width) and the bytes `data`; `NAME-rxx.labels`
is an array [N, L] in numpy's format. A record is framed by its length and checksums of the length and of the data.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import Dataset
from ..damage import named_if_damaged
from ..per_process import PerProcess
from .arrays import read_npy
from .labels import finite_labels

_RECORDS = re.compile(r".*-r(\d\d)\.tfrecords")
_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_CRC_POLYNOMIAL = 0x82F63B78
_CRC_MASK = 0xA282EAD8


def _crc_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ (_CRC_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return table


_CRC_TABLE = _crc_table()


def masked_crc32c(data: bytes) -> int:
    """The checksum of data in TFRecord files: CRC-32C, rotated and shifted so that it can lie beside what it checks."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return (((crc >> 15) | (crc << 17)) + _CRC_MASK) & 0xFFFFFFFF


def tfrecord_file_in(folder: Path, resolution: int | None = None) -> Path | None:
    """The record file of a folder with the wanted, else the largest, resolution; None if it has no record files.

    Raises:
        ValueError: the folder has record files, but none of the resolution, or several.
    """
    found: dict[int, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _RECORDS.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(2 ** int(match[1]), []).append(path)
    if not found:
        return None
    wanted = max(found) if resolution is None else resolution
    if wanted not in found:
        raise ValueError(f"{folder} has records of {', '.join(map(str, sorted(found)))} pixels, not of {wanted}")
    if len(found[wanted]) > 1:
        names = ", ".join(path.name for path in found[wanted])
        raise ValueError(f"{folder} holds several sets of {wanted} pixels: {names}")
    return found[wanted][0]


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """An unsigned integer of the protocol-buffer encoding, and the position behind it."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number in it has no end")


def _fields(data: memoryview) -> list[tuple[int, int | memoryview]]:
    """Number and value of every field of a protocol-buffer message."""
    fields: list[tuple[int, int | memoryview]] = []
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            fields.append((number, value))
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field in it has the unknown kind {kind}")
        if length > len(data) - position:
            raise ValueError(f"a field in it claims {length} bytes, {len(data) - position} are left")
        fields.append((number, data[position : position + length]))
        position += length
    return fields


def _message(data: memoryview, number: int) -> memoryview:
    """The last field of this number, which must be bytes or a message."""
    values = [value for key, value in _fields(data) if key == number and isinstance(value, memoryview)]
    if not values:
        raise ValueError(f"it lacks field {number}")
    return values[-1]


def _integers(feature: memoryview) -> list[int]:
    """An Int64List, packed or not."""
    numbers: list[int] = []
    for key, value in _fields(_message(feature, 3)):
        if key == 1 and isinstance(value, int):
            numbers.append(value)
        elif key == 1 and isinstance(value, memoryview):
            position = 0
            while position < len(value):
                number, position = _varint(value, position)
                numbers.append(number)
    return numbers


def parse_example(record: memoryview) -> tuple[tuple[int, ...], memoryview]:
    """Shape and bytes of the image in a record that is one `tf.train.Example`.

    Raises:
        ValueError: it is not one, or lacks either.
    """
    features: dict[bytes, memoryview] = {}
    for key, entry in _fields(_message(record, 1)):
        if key == 1 and isinstance(entry, memoryview):
            features[bytes(_message(entry, 1))] = _message(entry, 2)
    if not {b"shape", b"data"} <= features.keys():
        raise ValueError("it has no features 'shape' and 'data'")
    data = _message(_message(features[b"data"], 1), 1)
    return tuple(_integers(features[b"shape"])), data


class TFRecordImages(Dataset):
    """Images of one resolution from a folder of TFRecords; their bytes stay on disk until they are asked for.

    The framing of all records is checked at once, the images as they are read; their checksums are not.

    Args:
        folder: with `NAME-rLL.tfrecords` files, and perhaps `NAME-rxx.labels`.
        resolution: height and width, one of those that the folder has; None takes the largest.

    Raises:
        ValueError: a damaged file, or images that are not square.
    """

    def __init__(self, folder: Path, resolution: int | None = None) -> None:
        path = tfrecord_file_in(folder, resolution)
        if path is None:
            raise ValueError(f"{folder} holds no NAME-rLL.tfrecords")
        if not path.stat().st_size:
            raise ValueError(f"{path} is empty")
        self.name = str(folder)
        self._path = path
        self._data = PerProcess(functools.partial(np.memmap, path, np.uint8, "r"), survives_fork=True)
        self._records = self._index()
        shape, _ = self._example(0)
        if len(shape) != 3 or shape[0] not in (1, 3) or shape[1] != shape[2]:
            raise ValueError(f"{path} holds images of shape {shape}, expected square ones of 1 or 3 channels")
        self._shape = shape
        self.num_channels, self.resolution = shape[:2]

    def _index(self) -> list[tuple[int, int]]:
        """Start and length of every record, from the framing alone."""
        records: list[tuple[int, int]] = []
        data = self._data.get()
        position, size = 0, len(data)
        head = _LENGTH_BYTES + _CHECKSUM_BYTES
        while position < size:
            length_bytes = data[position : position + _LENGTH_BYTES].tobytes()
            length = int.from_bytes(length_bytes, "little")
            stored = data[position + _LENGTH_BYTES : position + head].tobytes()
            if len(stored) < _CHECKSUM_BYTES or int.from_bytes(stored, "little") != masked_crc32c(length_bytes):
                raise ValueError(f"{self._path} is damaged at byte {position}")
            if length + head + _CHECKSUM_BYTES > size - position:
                raise ValueError(f"{self._path} ends within record {len(records)}")
            records.append((position + head, length))
            position += head + length + _CHECKSUM_BYTES
        return records

    def _example(self, index: int) -> tuple[tuple[int, ...], memoryview]:
        start, length = self._records[index]
        record = self._data.get()[start : start + length].tobytes()
        try:
            return parse_example(memoryview(record))
        except ValueError as error:
            raise ValueError(f"record {index} of {self._path} is damaged: {error}") from error

    @functools.cached_property
    def labels(self) -> npt.NDArray[np.float32] | None:
        """The label vectors of the file beside the records.

        Raises:
            ValueError: the file is damaged or does not fit the number of images.
        """
        path = self._path.with_name(re.sub(r"-r\d\d\.tfrecords$", "-rxx.labels", self._path.name))
        if not path.is_file():
            return None
        with named_if_damaged(path, "an array of labels"), path.open("rb") as file:
            labels = read_npy(file, path.stat().st_size, path)
        if labels.ndim != 2 or len(labels) != len(self):
            raise ValueError(f"{path} must hold labels [{len(self)}, L], got an array of shape {labels.shape}")
        return finite_labels(labels.astype(np.float32), path) if labels.shape[1] else None

    def __len__(self) -> int:
        return len(self._records)

    def images_at(self, indices: npt.ArrayLike) -> Tensor:
        wanted = self._checked(indices)
        images = np.empty((len(wanted), *self._shape), np.uint8)
        for place, index in enumerate(wanted):
            shape, data = self._example(int(index))
            if shape != self._shape or len(data) != images[place].size:
                raise ValueError(f"record {index} of {self._path} has shape {shape} and {len(data)} bytes")
            images[place] = np.frombuffer(data, np.uint8).reshape(shape)
        return torch.from_numpy(images)
