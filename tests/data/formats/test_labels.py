from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sc_layers.data import open_dataset
from tests.data.files import random_pixels, write_labels, write_pngs, zip_folder


def test_classes_are_read_in_the_order_of_the_images(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(3))
    write_labels(tmp_path, [["002.png", 7], ["000.png", 1], ["001.png", 4], ["absent.png", 0]])
    labels = open_dataset(tmp_path).labels
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 4, 7]


def test_label_vectors_are_read_from_a_zip(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images" / "00", random_pixels(2))
    write_labels(tmp_path / "images", [["00\\000.png", [0, 1.5]], ["00/001.png", [2, 3]]])
    labels = open_dataset(zip_folder(tmp_path / "images", tmp_path / "images.zip")).labels
    assert labels is not None
    assert labels.dtype == np.float32
    assert labels.tolist() == [[0, 1.5], [2, 3]]


def test_a_label_file_may_hold_no_labels(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    write_labels(tmp_path, None)
    assert open_dataset(tmp_path).labels is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["000.png", 0]], r"no label for 001\.png \(1 of 2 images lack one\)"),
        ([["000.png", [0, 1]], ["001.png", [0]]], "mixes labels of different lengths"),
        ([["000.png", "cat"], ["001.png", "dog"]], "a class number or a list of numbers"),
        ([1, 2], "cannot be read as"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: object, message: str) -> None:
    write_pngs(tmp_path, random_pixels(2))
    write_labels(tmp_path, labels)
    with pytest.raises(ValueError, match=message):
        _ = open_dataset(tmp_path).labels


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_label_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    write_pngs(tmp_path, random_pixels(2))
    (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"dataset\.json cannot be read as \{"):
        _ = open_dataset(tmp_path).labels


@pytest.mark.parametrize("label", [float("nan"), float("inf"), 1e300, [0.0, float("nan")]])
def test_labels_that_are_no_finite_numbers_are_refused(tmp_path: Path, label: object) -> None:
    write_pngs(tmp_path, random_pixels(1))
    write_labels(tmp_path, [["000.png", label]])
    with pytest.raises(ValueError, match=r"dataset\.json gives image 0 a label that is no finite number"):
        _ = open_dataset(tmp_path).labels


@pytest.mark.parametrize("label", [-1, 2**40])
def test_classes_out_of_range_are_refused(tmp_path: Path, label: int) -> None:
    write_pngs(tmp_path, random_pixels(1))
    write_labels(tmp_path, [["000.png", label]])
    with pytest.raises(ValueError, match=f"has classes from {label} to {label}, expected 0 to"):
        _ = open_dataset(tmp_path).labels


@pytest.mark.parametrize("text", ["[" * 100_000, '{"labels": [["000.png", ' + "9" * 5000 + "]]}"])
def test_a_label_file_made_to_hurt_is_one_error(tmp_path: Path, text: str) -> None:
    write_pngs(tmp_path, random_pixels(1))
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ValueError, match=r"dataset\.json cannot be read as \{"):
        _ = open_dataset(tmp_path).labels


@pytest.mark.parametrize("zipped", [False, True])
def test_a_label_file_too_large_for_its_images_is_refused(tmp_path: Path, zipped: bool) -> None:
    folder = tmp_path / "images"
    write_pngs(folder, random_pixels(1))
    (folder / "dataset.json").write_text(" " * (2 << 20))
    source = zip_folder(folder, tmp_path / "images.zip", compression=8) if zipped else folder
    with pytest.raises(ValueError, match=r"dataset\.json holds more than the 1,052,672 bytes"):
        _ = open_dataset(source).labels
