"""Damaged data files of every format: whatever is done to a file, it is read or refused in one line."""

from __future__ import annotations

import gzip
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sc_layers.data import open_dataset
from tests.data.files import idx_bytes, random_pixels, write_labels, write_pngs, zip_folder

FEW, MANY = 15, 1000
LONGEST_MESSAGE = 1000
PIXELS = random_pixels(3)
FACTORS = np.arange(6).reshape(3, 2)
PICTURE_FORMATS = ("png", "jpg", "tif", "webp", "gif", "bmp", "ico", "tga", "pcx", "dds", "sgi", "ppm")

# What makes a valid set below a folder, and which of its files is to be damaged.
Maker = Callable[[Path], tuple[Path, Path]]


def _npz(folder: Path) -> tuple[Path, Path]:
    np.savez(folder / "a.npz", imgs=PIXELS, factors=FACTORS)
    return folder / "a.npz", folder / "a.npz"


def _packed_npz(folder: Path) -> tuple[Path, Path]:
    np.savez_compressed(folder / "a.npz", imgs=PIXELS, factors=FACTORS)
    return folder / "a.npz", folder / "a.npz"


def _npy(folder: Path) -> tuple[Path, Path]:
    np.save(folder / "a.npy", PIXELS)
    return folder / "a.npy", folder / "a.npy"


def _h5(folder: Path) -> tuple[Path, Path]:
    with pytest.importorskip("h5py").File(folder / "a.h5", "w") as file:
        file.create_dataset("images", data=PIXELS, chunks=(1, 8, 8, 3), compression="gzip")
        file["labels"] = FACTORS
    return folder / "a.h5", folder / "a.h5"


def _idx(folder: Path) -> tuple[Path, Path]:
    (folder / "a").write_bytes(idx_bytes(random_pixels(3, channels=1)))
    return folder / "a", folder / "a"


def _packed_idx(folder: Path) -> tuple[Path, Path]:
    (folder / "a").write_bytes(gzip.compress(idx_bytes(random_pixels(3, channels=1))))
    return folder / "a", folder / "a"


def _records(folder: Path) -> tuple[Path, Path]:
    shutil.copytree(Path(__file__).parent / "reference" / "tfr_toy", folder / "toy")
    return folder / "toy", folder / "toy" / "tfr_toy-r04.tfrecords"


def _record_labels(folder: Path) -> tuple[Path, Path]:
    return _records(folder)[0], folder / "toy" / "tfr_toy-rxx.labels"


def _labelled(folder: Path) -> Path:
    write_pngs(folder / "images", PIXELS)
    write_labels(folder / "images", [[f"{index:03}.png", index] for index in range(3)])
    return folder / "images"


def _zip(folder: Path) -> tuple[Path, Path]:
    path = zip_folder(_labelled(folder), folder / "a.zip", compression=8)
    return path, path


def _label_file(folder: Path) -> tuple[Path, Path]:
    return _labelled(folder), folder / "images" / "dataset.json"


def _smallnorb(folder: Path) -> tuple[Path, Path]:
    for kind, values in {"dat": PIXELS[:, None, :, :, 0].repeat(2, 1), "cat": [0] * 3, "info": [[0] * 4] * 3}.items():
        array = np.asarray(values, np.uint8 if kind == "dat" else np.int32)
        sizes = (*array.shape, *[1] * max(0, 3 - array.ndim))
        head = struct.pack(f"<{2 + len(sizes)}i", 0x1E3D4C54 + (kind == "dat"), array.ndim, *sizes)
        (folder / f"smallnorb-training-{kind}.mat").write_bytes(head + array.tobytes())
    return folder, folder / "smallnorb-training-dat.mat"


def _cars(folder: Path) -> tuple[Path, Path]:
    save = pytest.importorskip("scipy.io").savemat
    save(folder / "a.mat", {"im": np.zeros((8, 8, 3, 2, 2), np.uint8)}, do_compression=True)
    return folder, folder / "a.mat"


def _lmdb(folder: Path) -> tuple[Path, Path]:
    environment = pytest.importorskip("lmdb").open(str(folder / "lmdb"))
    with environment.begin(write=True) as writing:
        for index, path in enumerate(write_pngs(folder / "pngs", PIXELS)):
            writing.put(f"8-{index:05}".encode(), path.read_bytes())
    environment.close()
    return folder / "lmdb", folder / "lmdb" / "data.mdb"


def _picture(suffix: str) -> Maker:
    def make(folder: Path) -> tuple[Path, Path]:
        Image.fromarray(random_pixels(1, size=16)[0]).save(folder / f"a.{suffix}")  # no icon is smaller
        return folder, folder / f"a.{suffix}"

    return make


MAKERS: dict[str, Maker] = {
    **{make.__name__[1:]: make for make in (_npz, _packed_npz, _npy, _h5, _idx, _packed_idx, _records, _record_labels)},
    **{make.__name__[1:]: make for make in (_zip, _label_file, _smallnorb, _cars, _lmdb)},
    **{suffix: _picture(suffix) for suffix in PICTURE_FORMATS},
}
_FORGED = (b"\xff\xff\xff\x7f", b"\x7f\xff\xff\xff", bytes(4), b"\xff\xff\xff\xff")


def _damaged(content: bytes, random: np.random.Generator) -> bytes:
    """The content with a few bytes changed, forged, cut off or put in; half of the places lie near the beginning."""
    damaged = bytearray(content)
    for _ in range(random.integers(1, 6)):
        end = len(damaged) if random.random() < 0.5 else min(len(damaged), 200)
        place = int(random.integers(max(end, 1)))
        kind = random.integers(4)
        if kind == 0:
            damaged[place : place + 1] = random.bytes(1)
        elif kind == 1:
            damaged[place : place + 4] = _FORGED[random.integers(4)]
        elif kind == 2:
            del damaged[place + 1 :]
        else:
            damaged[place:place] = random.bytes(int(random.integers(1, 30)))
    return bytes(damaged)


def _refusal(source: Path) -> str | None:
    """With what words a set is refused, None for one that can be read; raises whatever is no refusal."""
    try:
        data = open_dataset(source)
        assert data.images_at(range(len(data))).shape[1:] == (data.num_channels, data.resolution, data.resolution)
        _ = data.labels
    except ValueError as error:
        return str(error)
    return None


def _try(make: Maker, folder: Path, count: int) -> None:
    source, target = make(folder)
    assert _refusal(source) is None
    content = target.read_bytes()
    refusals = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for seed in range(count):
            target.write_bytes(_damaged(content, np.random.default_rng(seed)))
            refusals.append(_refusal(source))
    words = [refusal for refusal in refusals if refusal is not None]
    assert words
    assert all("\n" not in refusal and len(refusal) < LONGEST_MESSAGE for refusal in words)


@pytest.mark.parametrize("name", MAKERS)
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    _try(MAKERS[name], tmp_path, FEW)


@pytest.mark.sweep
@pytest.mark.parametrize("name", [name for name in MAKERS if name != "lmdb"])
def test_many_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    _try(MAKERS[name], tmp_path, MANY)
