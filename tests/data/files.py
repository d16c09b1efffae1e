"""Small image files for the tests of data sets."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]


def random_pixels(count: int, size: int = 8, channels: int = 3) -> Pixels:
    """[count, size, size, channels], or [count, size, size] for one channel."""
    shape = (count, size, size) if channels == 1 else (count, size, size, channels)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


def write_pngs(folder: Path, pixels: Pixels) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.png" for number in range(len(pixels))]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    return paths


def write_labels(folder: Path, labels: Any) -> None:
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def zip_folder(folder: Path, archive: Path, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, path.relative_to(folder).as_posix())
    return archive


def idx_bytes(values: Pixels) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.tobytes()
