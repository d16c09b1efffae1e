from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sc_layers.data import ArrayImages, open_dataset
from sc_layers.data.formats import arrays
from sc_layers.data.formats.arrays import pixel_scale
from tests.data.files import random_pixels

RGB = random_pixels(5)
GREY = random_pixels(5, channels=1)


def _written(folder: Path, suffix: str, **content: npt.NDArray[Any]) -> Path:
    path = folder / f"data{suffix}"
    if suffix == ".h5":
        with pytest.importorskip("h5py").File(path, "w") as file:
            for name, array in content.items():
                file[name] = array
    else:
        np.savez(path, **content)
    return path


def _opened(folder: Path, **content: npt.NDArray[Any]) -> ArrayImages:
    data = open_dataset(_written(folder, ".npz", **content))
    assert isinstance(data, ArrayImages)
    return data


def _pixels(data: ArrayImages) -> npt.NDArray[np.uint8]:
    """[N, C, H, W]."""
    return data.images_at(range(len(data))).numpy()


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_images_and_factors_are_read(tmp_path: Path, suffix: str) -> None:
    factors = np.arange(10).reshape(5, 2)
    data = open_dataset(_written(tmp_path, suffix, images=RGB, labels=factors))
    assert (len(data), data.num_channels, data.resolution) == (5, 3, 8)
    np.testing.assert_array_equal(data.images_at([4, 0, 4]).permute(0, 2, 3, 1), RGB[[4, 0, 4]])
    np.testing.assert_array_equal(data.factors, factors)
    assert data.labels.dtype == np.float32


def test_classes_are_labels(tmp_path: Path) -> None:
    data = _opened(tmp_path, imgs=GREY, labels=np.uint8([3, 1, 4, 1, 5]))
    assert data.factors is None
    assert data.labels.tolist() == [3, 1, 4, 1, 5]


def test_a_single_array_of_images_needs_no_usual_name(tmp_path: Path) -> None:
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, arr_0=RGB, other=np.zeros(3))), RGB.transpose(0, 3, 1, 2))


def test_a_file_of_one_array_is_read(tmp_path: Path) -> None:
    np.save(tmp_path / "data.npy", GREY)
    np.testing.assert_array_equal(open_dataset(tmp_path / "data.npy").images_at([2])[0, 0], GREY[2])


def test_packed_and_plain_files_hold_the_same(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "packed.npz", imgs=np.asfortranarray(RGB))
    np.testing.assert_array_equal(_pixels(open_dataset(tmp_path / "packed.npz")), RGB.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, imgs=np.asfortranarray(RGB))), RGB.transpose(0, 3, 1, 2))


def test_plain_files_are_mapped_and_not_read(tmp_path: Path) -> None:
    assert isinstance(_opened(tmp_path, imgs=RGB)._images.get(), np.memmap)


def test_a_first_image_that_is_black_does_not_change_the_scale(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8), np.uint8)
    images[1, 0, :4] = [0, 20, 100, 200]
    data = _opened(tmp_path, imgs=images)
    assert data.images_at([1])[0, 0, 0, :4].tolist() == [0, 20, 100, 200]
    assert data.notes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.bool_, np.float32, np.float64])
def test_values_up_to_one_go_from_black_to_white_and_that_is_noted(tmp_path: Path, dtype: Any) -> None:
    data = _opened(tmp_path, imgs=(GREY > 127).astype(dtype))
    np.testing.assert_array_equal(_pixels(data)[:, 0], (GREY > 127) * 255)
    (note,) = data.notes
    assert note.endswith("taken as black to white")


def test_floating_point_values_are_rounded(tmp_path: Path) -> None:
    data = _opened(tmp_path, imgs=GREY.astype(np.float32) / 255)
    np.testing.assert_array_equal(_pixels(data)[:, 0], GREY)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64])
def test_larger_integers_up_to_255_are_bytes(tmp_path: Path, dtype: Any) -> None:
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, imgs=GREY.astype(dtype)))[:, 0], GREY)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (GREY.astype(np.uint16) * 2, r"uint16 images with values from 0 to \d+, expected 0 to 255"),
        (GREY.astype(np.int32) - 9, r"int32 images with values from -9 to \d+, expected 0 to 255"),
        (GREY.astype(np.float32), r"float32 images with values from 0 to 255, expected 0 to 1"),
        (np.full((1, 8, 8), np.nan), "float64 images with values from nan to nan, expected 0 to 1"),
        (np.full((1, 8, 8), "a"), "has images of <U1, expected numbers"),
    ],
)
def test_values_of_unknown_scale_are_refused(tmp_path: Path, images: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _opened(tmp_path, imgs=images)


def test_the_last_part_of_an_array_decides_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "CHUNK_BYTES", 1)
    images = np.zeros((4, 2, 2), np.uint8)
    images[0] = 1
    assert pixel_scale(images, "a") == 255
    images[3] = 2
    assert pixel_scale(images, "a") == 1


def test_channels_may_come_before_or_after_rows(tmp_path: Path) -> None:
    first = RGB.transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, imgs=first)), first)
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, imgs=RGB)), first)
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, imgs=GREY[..., None]))[:, 0], GREY)
    np.testing.assert_array_equal(_pixels(_opened(tmp_path, imgs=GREY[:, None]))[:, 0], GREY)


@pytest.mark.parametrize("shape", [(5, 3, 3, 3), (5, 8, 8, 4), (5, 8, 8, 2), (5, 4, 8, 8), (5, 64), (2, 5, 8, 8, 3)])
def test_shapes_that_tell_no_order_of_channels_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"an array of shape \(.*\), expected images \[N, H, W\], \[N, H, W, C\]"):
        _opened(tmp_path, imgs=np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(5, 8, 6), (0, 8, 8)])
def test_images_that_are_not_square_or_none_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"images of \d+x8 pixels, expected square ones"):
        _opened(tmp_path, imgs=np.zeros(shape, np.uint8))


def test_another_resolution_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 images of 8x8 pixels, expected 16x16"):
        open_dataset(_written(tmp_path, ".npz", imgs=RGB), 16)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([[0.0], [1], [np.nan], [3], [4]]), "gives image 2 a label that is no finite number"),
        (np.zeros((4, 2)), r"must hold factors \[5, F\] or classes \[5\], got float64 of shape \(4, 2\)"),
        (np.array(["a"] * 5), "must hold factors"),
        (np.array([0, 1, -1, 2, 3]), "must hold classes as integers from 0 on"),
        (np.zeros(5), "must hold classes as integers from 0 on, got float64"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: npt.NDArray[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _opened(tmp_path, imgs=RGB, labels=labels)


def test_a_file_without_images_lists_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no array of images: expected 'imgs' or 'images', it has a, b"):
        _opened(tmp_path, a=np.zeros(3), b=np.zeros(3))


def test_pickled_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds Python objects, expected numbers"):
        _opened(tmp_path, imgs=np.array([{}], dtype=object))


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5"])
def test_damaged_files_are_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"data{suffix}").write_bytes(b"\x93NUMPY damaged" * 20)
    with pytest.raises(ValueError, match=rf"data\{suffix} cannot be read"):
        open_dataset(tmp_path / f"data{suffix}")


def test_a_packed_array_cut_short_is_named(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", imgs=random_pixels(50))
    content = bytearray((tmp_path / "data.npz").read_bytes())
    content[3000] ^= 0xFF
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"imgs\.npy cannot be read"):
        open_dataset(tmp_path / "data.npz")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [(10**6, 1000, 1000), (2**62, 2**62, 4), (-1, 8, 8)])
def test_a_header_that_promises_more_than_there_is_is_refused(
    tmp_path: Path, compression: int, shape: tuple[int, ...]
) -> None:
    with zipfile.ZipFile(tmp_path / "data.npz", "w", compression) as archive, archive.open("imgs.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        file.write(bytes(1000))
    with pytest.raises(ValueError, match=r"holds 1000 bytes of data, its header promises uint8 \("):
        open_dataset(tmp_path / "data.npz")


def test_arrays_over_the_limit_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "data.npz", imgs=RGB)
    monkeypatch.setattr(arrays, "MAX_ARRAY_BYTES", 100)
    with pytest.raises(ValueError, match=r"imgs\.npy holds [\d,]+ bytes, more than the 100"):
        open_dataset(tmp_path / "data.npz")
