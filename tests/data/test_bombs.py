"""Small files that unpack to gigabytes: refused in one line, within a gigabyte of memory and a few seconds."""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.files import random_pixels, write_pngs

SECONDS = 20  # of a loaded machine; each refusal takes milliseconds
HEADROOM = 1 << 30
OPEN_EACH = """
import resource, sys, time
from pathlib import Path
import PIL.Image, numpy, torch
import sc_layers.data as data
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]),) * 2)
for path in sys.argv[2:]:
    started = time.monotonic()
    try:
        opened = data.open_dataset(path)
        opened.labels, opened.images_at([0])
        outcome = "opened"
    except ValueError as error:
        outcome = "refused: " + str(error)[:300]
    print(f"{outcome} in {time.monotonic() - started:.0f} s")
"""


def _zeros(path: Path, head: bytes, size: int) -> None:
    """A gzipped file that begins with `head` and unpacks to `size` zeros."""
    with gzip.open(path, "wb", 9) as file:
        file.write(head)
        for _ in range(size >> 24):
            file.write(bytes(1 << 24))


def _idx(folder: Path) -> Path:
    _zeros(folder / "digits.gz", bytes([0, 0, 8, 3]) + struct.pack(">3I", 2_500_000, 28, 100), 1 << 30)
    return folder / "digits.gz"


def _label_file(folder: Path) -> Path:
    write_pngs(folder / "pngs", random_pixels(2))
    with zipfile.ZipFile(folder / "labels.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (folder / "pngs").iterdir():
            archive.write(path, path.name)
        with archive.open("dataset.json", "w") as file:
            file.write(b'{"labels": [')
            for _ in range(64):
                file.write(b"[]," * (1 << 22))
    return folder / "labels.zip"


def _large_pictures(folder: Path) -> Path:
    (folder / "pictures").mkdir()
    for number in range(4):
        Image.new("1", (13_000, 13_000)).save(folder / "pictures" / f"{number}.png")
    return folder / "pictures"


def _member(folder: Path) -> Path:
    path = folder / "member.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.bmp", "w") as file:
        for _ in range(64):
            file.write(bytes(1 << 24))
    return path


def _packed_array(folder: Path) -> Path:
    path = folder / "array.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("imgs.npy", "w") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 14, 256, 256)}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(64):
            file.write(bytes(1 << 24))
    return path


def _matrix(folder: Path) -> Path:
    (folder / "norb").mkdir()
    head = struct.pack("<6i", 0x1E3D4C55, 4, 1 << 17, 2, 96, 96)
    _zeros(folder / "norb" / "smallnorb-training-dat.mat.gz", head, 1 << 28)
    return folder / "norb"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of memory needs Linux")
def test_small_files_that_unpack_to_gigabytes_are_refused_within_one(tmp_path: Path) -> None:
    bombs = [make(tmp_path) for make in (_idx, _label_file, _large_pictures, _member, _packed_array, _matrix)]
    for path in bombs[:2] + bombs[3:5]:
        assert path.stat().st_size < 4_000_000, json.dumps(path.name)
    command = [sys.executable, "-W", "ignore", "-c", OPEN_EACH, str(HEADROOM), *map(str, bombs)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    outcomes = result.stdout.splitlines()
    assert len(outcomes) == len(bombs)
    for path, outcome in zip(bombs, outcomes, strict=True):
        assert outcome.startswith("refused: "), f"{path.name}: {outcome}"
        assert path.name in outcome
        assert int(outcome.split()[-2]) <= SECONDS, f"{path.name}: {outcome}"
