"""How much of a file is read before it is believed: what a few megabytes may unpack to."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

MAX_PIXELS = 100_000_000  # of one picture, 300 MB in RGB
MAX_SIDE = 4096  # of the images of a data set, which are read many at a time
MAX_FILE_BYTES = 1 << 28  # of one picture file, packed or not
MAX_ARRAY_BYTES = 1 << 32  # of one array that is unpacked into memory; dSprites has 3 GB
MAX_TABLE_BYTES = 1 << 28  # of one array of factors, or of one car
MAX_RATIO = 300  # of what a large array is unpacked to and from; dSprites has 120
ALWAYS_UNPACKED_BYTES = 1 << 28  # up to here whatever the ratio
MAX_GZIP_BYTES = 600_000_000  # of one file of MNIST's kind; EMNIST has 550 MB
MAX_LABEL_BYTES = 1 << 26
LABEL_BYTES_PER_IMAGE = 1 << 12
FEWEST_LABEL_BYTES = 1 << 20

CHUNK_BYTES = 1 << 24
GZIP_MAGIC = b"\x1f\x8b"


def check_size(size: int, limit: int, where: object) -> None:
    """Refuse what is larger than a limit, before it is read.

    Args:
        size: bytes.
        limit: the most that is read.
        where: what messages call it.

    Raises:
        ValueError: naming the file, its size and the limit.
    """
    if size > limit:
        raise ValueError(f"{where} holds {size:,} bytes, more than the {limit:,} that are read of such a file")


def label_limit(num_images: int) -> int:
    """Bytes that the label file of `num_images` images may have."""
    return min(MAX_LABEL_BYTES, FEWEST_LABEL_BYTES + LABEL_BYTES_PER_IMAGE * num_images)


def read_bounded(file: IO[bytes], limit: int, where: object) -> bytes:
    """All bytes of an open file.

    Args:
        file: open for reading.
        limit: the most bytes that are read.
        where: what messages call it.

    Raises:
        ValueError: it holds more than `limit`.
    """
    content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"{where} holds more than the {limit:,} bytes that are read of such a file")
    return content


def is_gzipped(path: Path) -> bool:
    """Whether the file at `path` begins as gzip files do."""
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def check_ratio(size: int, packed_size: int, where: object) -> None:
    """Refuse a large array that a suspiciously small file unpacks to, before it is unpacked.

    Args:
        size: bytes of the array.
        packed_size: bytes that it is unpacked from.
        where: what messages call it.

    Raises:
        ValueError: naming the file and both sizes.
    """
    if size > max(ALWAYS_UNPACKED_BYTES, MAX_RATIO * packed_size):
        raise ValueError(f"{where} would unpack to {size:,} bytes from {packed_size:,}, over {MAX_RATIO} times as many")


def read_gzipped(path: Path, size: int) -> npt.NDArray[np.uint8]:
    """The first `size` bytes of the gzipped file at `path`, or all if it has fewer.

    Raises:
        ValueError: the file is damaged, or so many bytes are over the limit.
    """
    check_size(size, MAX_GZIP_BYTES, path)
    content = np.empty(size, np.uint8)
    filled = 0
    try:
        with gzip.open(path) as file:
            while part := file.read(min(CHUNK_BYTES, size - filled)):
                content[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
                filled += len(part)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be unpacked: {error}") from error
    return content[:filled]
