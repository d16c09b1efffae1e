"""The authors' TFRecord folders: images, order and labels, and damaged files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sc_layers.data import TFRecordImages, open_dataset
from sc_layers.data.formats.tfrecords import masked_crc32c, parse_example
from tests.golden import DATA, load_golden

FOLDER = DATA / "tfr_toy"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "toy"))


def test_images_and_labels_are_those_of_the_exporter() -> None:
    golden = load_golden("tfr_toy")
    order = golden.numpy("order")
    data = open_dataset(FOLDER)
    assert isinstance(data, TFRecordImages)
    assert (len(data), data.num_channels, data.resolution) == (12, 3, 16)
    assert torch.equal(data.images_at(np.arange(12)), golden["images"][order])
    assert np.array_equal(data.labels, golden.numpy("labels")[order])


@pytest.mark.parametrize("resolution", [4, 8])
def test_lower_resolutions_are_means_of_blocks(resolution: int) -> None:
    factor = 16 // resolution
    large = open_dataset(FOLDER).images_at([3, 0, 3]).float()
    small = open_dataset(FOLDER, resolution).images_at([3, 0, 3])
    assert small.shape == (3, 3, resolution, resolution)
    assert (torch.nn.functional.avg_pool2d(large, factor) - small).abs().max() <= 1


def test_a_resolution_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match="records of 4, 8, 16 pixels, not of 32"):
        open_dataset(FOLDER, 32)


def test_cropping_is_refused() -> None:
    with pytest.raises(ValueError, match="celeba"):
        open_dataset(FOLDER, crop="celeba")


def test_an_index_out_of_range_is_refused() -> None:
    with pytest.raises(IndexError, match="12"):
        open_dataset(FOLDER).images_at([12])


def test_labels_may_be_missing(copied: Path) -> None:
    (copied / "tfr_toy-rxx.labels").unlink()
    assert open_dataset(copied).labels is None


def test_labels_of_another_number_are_refused(copied: Path) -> None:
    with (copied / "tfr_toy-rxx.labels").open("wb") as file:
        np.save(file, np.zeros((11, 2), np.float32))
    with pytest.raises(ValueError, match=r"labels \[12, L\], got an array of shape \(11, 2\)"):
        _ = open_dataset(copied).labels


def test_labels_cannot_be_pickles(copied: Path) -> None:
    with (copied / "tfr_toy-rxx.labels").open("wb") as file:
        np.save(file, np.array([{"a": 1}] * 12, dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as an array of labels"):
        _ = open_dataset(copied).labels


def test_a_truncated_file_is_refused(copied: Path) -> None:
    path = copied / "tfr_toy-r04.tfrecords"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="ends within record 11"):
        open_dataset(copied)


def test_an_empty_file_is_refused(copied: Path) -> None:
    (copied / "tfr_toy-r04.tfrecords").write_bytes(b"")
    with pytest.raises(ValueError, match="is empty"):
        open_dataset(copied)


def test_a_wrong_length_is_noticed_by_its_checksum(copied: Path) -> None:
    path = copied / "tfr_toy-r04.tfrecords"
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged at byte 0"):
        open_dataset(copied)


def test_two_sets_in_one_folder_are_refused(copied: Path) -> None:
    shutil.copy(copied / "tfr_toy-r04.tfrecords", copied / "other-r04.tfrecords")
    with pytest.raises(ValueError, match="several sets of 16 pixels"):
        open_dataset(copied)


def test_a_damaged_image_is_named_when_it_is_read(copied: Path) -> None:
    path = copied / "tfr_toy-r04.tfrecords"
    data = bytearray(path.read_bytes())
    size = len(data) // 12
    data[size + 12] = 0xFF  # first byte of the message in record 1
    path.write_bytes(data)
    dataset = open_dataset(copied)
    dataset.images_at([0, 2])
    with pytest.raises(ValueError, match="record 1 of"):
        dataset.images_at([1])


def test_checksums_are_those_of_the_files() -> None:
    assert masked_crc32c(b"") == 0xA282EAD8
    data = (FOLDER / "tfr_toy-r02.tfrecords").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert masked_crc32c(data[12 : 12 + length]) == int.from_bytes(data[12 + length : 16 + length], "little")


def test_any_damage_to_a_message_is_a_value_error() -> None:
    data = (FOLDER / "tfr_toy-r02.tfrecords").read_bytes()
    message = data[12 : 12 + int.from_bytes(data[:8], "little")]
    rng = np.random.RandomState(0)
    failures = 0
    for _ in range(500):
        damaged = bytearray(message)
        damaged[rng.randint(len(damaged))] = rng.randint(256)
        try:
            parse_example(memoryview(bytes(damaged[: rng.randint(len(damaged)) + 1])))
        except ValueError:
            failures += 1
    assert failures > 250
