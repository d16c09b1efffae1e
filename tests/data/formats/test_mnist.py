from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from sc_layers.data import IdxImages
from sc_layers.data.formats.mnist import holds_idx, image_file_in, read_idx
from tests.data.files import idx_bytes, random_pixels

DIGITS = random_pixels(5, size=28, channels=1)
CLASSES = np.array([3, 1, 4, 1, 5], np.uint8)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"])
def test_digits_get_a_black_margin_to_32_pixels(tmp_path: Path, name: str) -> None:
    data = IdxImages(_write(tmp_path / name, idx_bytes(DIGITS)))
    images = data.images_at([4, 0]).numpy()
    assert (len(data), data.resolution, data.num_channels, images.shape) == (5, 32, 1, (2, 1, 32, 32))
    np.testing.assert_array_equal(images[:, 0, 2:-2, 2:-2], DIGITS[[4, 0]])
    assert images.sum() == DIGITS[[4, 0]].sum()


def test_the_stored_size_is_kept_when_asked_for(tmp_path: Path) -> None:
    data = IdxImages(_write(tmp_path / "digits", idx_bytes(DIGITS)), resolution=28)
    np.testing.assert_array_equal(data.images_at([1])[0, 0], DIGITS[1])


def test_sizes_that_are_powers_of_two_get_no_margin(tmp_path: Path) -> None:
    pixels = random_pixels(2, size=8, channels=1)
    data = IdxImages(_write(tmp_path / "digits", idx_bytes(pixels)))
    np.testing.assert_array_equal(data.images_at([0, 1])[:, 0], pixels)


@pytest.mark.parametrize("resolution", [16, 30, 64])
def test_another_resolution_is_refused(tmp_path: Path, resolution: int) -> None:
    path = _write(tmp_path / "digits", idx_bytes(DIGITS))
    with pytest.raises(ValueError, match=f"digits has images of 28x28 pixels, expected {resolution}x{resolution}"):
        IdxImages(path, resolution)


def test_images_that_are_not_square_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "digits", idx_bytes(DIGITS[:, :20]))
    with pytest.raises(ValueError, match="has images of 28x20 pixels, expected square ones"):
        IdxImages(path)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("t10k-images.idx3-ubyte.gz", "t10k-labels.idx1-ubyte.gz"),
    ],
)
def test_labels_beside_the_images_are_read(tmp_path: Path, images: str, labels: str) -> None:
    _write(tmp_path / labels, idx_bytes(CLASSES))
    found = IdxImages(_write(tmp_path / images, idx_bytes(DIGITS))).labels
    assert found is not None
    assert found.dtype == np.int64
    assert found.tolist() == CLASSES.tolist()


def test_without_a_label_file_there_are_no_labels(tmp_path: Path) -> None:
    assert IdxImages(_write(tmp_path / "train-images-idx3-ubyte", idx_bytes(DIGITS))).labels is None


def test_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    _write(tmp_path / "train-labels-idx1-ubyte", idx_bytes(CLASSES[:4]))
    path = _write(tmp_path / "train-images-idx3-ubyte", idx_bytes(DIGITS))
    with pytest.raises(ValueError, match="idx1-ubyte has 4 labels, expected 5"):
        _ = IdxImages(path).labels


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "digits", idx_bytes(DIGITS)[:-7])
    with pytest.raises(
        ValueError, match=rf"not hold the 5x28x28 values that its header promises \({DIGITS.size - 7}\)"
    ):
        IdxImages(path)


def test_a_damaged_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "digits.gz"
    path.write_bytes(gzip.compress(idx_bytes(DIGITS))[:-100])
    with pytest.raises(ValueError, match=r"digits\.gz cannot be unpacked"):
        IdxImages(path)


@pytest.mark.parametrize("content", [b"", b"\0\0", b"\0\0\x0d\x01\0\0\0\0", b"\0\0\x08\x03\0\0"])
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError, match="is not an idx-ubyte file"):
        read_idx(_write(tmp_path / "digits", content))


def test_labels_are_no_images(tmp_path: Path) -> None:
    path = _write(tmp_path / "labels", idx_bytes(CLASSES))
    assert not holds_idx(path, 3)
    with pytest.raises(ValueError, match=r"must hold images \[N, H, W\], got an array of shape \(5,\)"):
        IdxImages(path)


def test_a_folder_gives_its_training_images(tmp_path: Path) -> None:
    for name in ("t10k-images-idx3-ubyte.gz", "train-images-idx3-ubyte.gz"):
        _write(tmp_path / name, idx_bytes(DIGITS))
    _write(tmp_path / "train-labels-idx1-ubyte.gz", idx_bytes(CLASSES))
    assert image_file_in(tmp_path) == tmp_path / "train-images-idx3-ubyte.gz"


def test_a_folder_with_one_file_of_images_gives_that(tmp_path: Path) -> None:
    path = _write(tmp_path / "t10k-images-idx3-ubyte", idx_bytes(DIGITS))
    assert image_file_in(tmp_path) == path


def test_a_folder_with_several_files_of_images_asks_for_one(tmp_path: Path) -> None:
    for name in ("a-idx3-ubyte", "b-idx3-ubyte"):
        _write(tmp_path / name, idx_bytes(DIGITS))
    with pytest.raises(ValueError, match="several image files, name one: a-idx3-ubyte, b-idx3-ubyte"):
        image_file_in(tmp_path)


def test_a_gzip_whose_header_promises_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    promised = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2_500_000, 28, 100)
    path = _write(tmp_path / "digits.gz", promised + bytes(1000))
    with pytest.raises(ValueError, match=r"digits\.gz holds 7,000,000,017 bytes, more than the"):
        IdxImages(path)
