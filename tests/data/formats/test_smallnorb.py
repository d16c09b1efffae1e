from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sc_layers.data import SmallNORB, open_dataset
from sc_layers.data.formats.smallnorb import read_matrix

STEM = "smallnorb-5x46789x9x18x6x2x96x96-{part}-{kind}.mat"
COUNT, SIZE = 6, 8


def _matrix(values: npt.NDArray[Any]) -> bytes:
    magic = 0x1E3D4C55 if values.dtype == np.uint8 else 0x1E3D4C54
    sizes = (*values.shape, *[1] * max(0, 3 - values.ndim))
    return struct.pack(f"<{2 + len(sizes)}i", magic, values.ndim, *sizes) + values.tobytes()


def _write(folder: Path, part: str, suffix: str = "", **changes: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    random = np.random.default_rng(len(part))
    content: dict[str, npt.NDArray[Any]] = {
        "dat": random.integers(0, 256, (COUNT, 2, SIZE, SIZE), dtype=np.uint8),
        "cat": random.integers(0, 5, COUNT, dtype=np.int32),
        "info": np.stack([random.integers(0, n, COUNT) * k for n, k in ((10, 1), (9, 1), (18, 2), (6, 1))], 1),
    }
    content["info"] = content["info"].astype(np.int32)
    content |= changes
    for kind, values in content.items():
        packed = gzip.compress(_matrix(values)) if suffix else _matrix(values)
        (folder / (STEM.format(part=part, kind=kind) + suffix)).write_bytes(packed)
    return content


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_files_of_the_published_layout_are_read(tmp_path: Path, suffix: str) -> None:
    testing, training = (_write(tmp_path, part, suffix) for part in ("testing", "training"))
    data = open_dataset(tmp_path, SIZE)
    assert isinstance(data, SmallNORB)
    assert data.factor_names == ("category", "elevation", "azimuth", "lighting", "instance")
    np.testing.assert_array_equal(
        data.images_at(range(2 * COUNT))[:, 0], np.concatenate([testing["dat"][:, 0], training["dat"][:, 0]])
    )
    instance, elevation, azimuth, lighting = testing["info"][3]
    assert data.factors[3].tolist() == [testing["cat"][3], elevation, azimuth // 2, lighting, instance]


def test_images_are_resampled_to_64_pixels(tmp_path: Path) -> None:
    _write(tmp_path, "training", dat=np.zeros((COUNT, 2, 96, 96), np.uint8))
    assert open_dataset(tmp_path).images_at([0]).shape == (1, 1, 64, 64)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    _write(tmp_path, "training")
    (tmp_path / STEM.format(part="training", kind="info")).unlink()
    with pytest.raises(FileNotFoundError, match=r"training-info\.mat"):
        open_dataset(tmp_path)


def test_files_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, "training", cat=np.zeros(COUNT - 1, np.int32))
    with pytest.raises(ValueError, match=r"must hold categories \[6\] and info \[6, 4\], got \(5,\) and \(6, 4\)"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a binary matrix of bytes or integers"),
        (b"MATLAB 5.0", "is not a binary matrix of bytes or integers"),
        (
            struct.pack("<5i", 0x1E3D4C55, 1, 10, 1, 1) + b"abc",
            r"3 bytes of data, its header promises uint8 \(10,\)",
        ),
        (struct.pack("<5i", 0x1E3D4C55, 1, -10, 1, 1), r"promises an array of shape \(-10,\)"),
        (struct.pack("<5i", 0x1E3D4C54, 3, 2**30, 2**30, 9), "more than the"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.mat").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_matrix(tmp_path / "a.mat")
