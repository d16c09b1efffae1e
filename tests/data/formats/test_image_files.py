from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sc_layers.data import ImageFiles
from sc_layers.data.formats.image_files import FolderFiles, ZipFiles
from tests.data.files import random_pixels, write_labels, write_pngs, zip_folder


def _folder(path: Path, resolution: int | None = None, crop: str | None = None) -> ImageFiles:
    return ImageFiles(FolderFiles(path), resolution, crop)


def _all_pixels(data: ImageFiles) -> np.ndarray:
    """[N, H, W, C]."""
    return data.images_at(np.arange(len(data))).permute(0, 2, 3, 1).numpy()


def test_reads_a_folder_with_subfolders_in_the_order_of_names(tmp_path: Path) -> None:
    pixels = random_pixels(6)
    write_pngs(tmp_path / "b", pixels[3:])
    write_pngs(tmp_path / "a" / "deep", pixels[:3])
    data = _folder(tmp_path)
    assert (len(data), data.resolution, data.num_channels) == (6, 8, 3)
    np.testing.assert_array_equal(_all_pixels(data), pixels)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_a_zip_like_the_folder_in_it(tmp_path: Path, compression: int) -> None:
    pixels = random_pixels(5)
    write_pngs(tmp_path / "images" / "00000", pixels)
    data = ImageFiles(ZipFiles(zip_folder(tmp_path / "images", tmp_path / "images.zip", compression)))
    np.testing.assert_array_equal(_all_pixels(data), pixels)


def test_reads_chosen_images(tmp_path: Path) -> None:
    pixels = random_pixels(5)
    write_pngs(tmp_path, pixels)
    images = _folder(tmp_path).images_at([4, 0, 4])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), pixels[[4, 0, 4]])


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "bmp", "webp", "tif"])
def test_reads_other_formats(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (8, 8), (200, 100, 50)).save(tmp_path / f"image.{suffix}")
    np.testing.assert_allclose(_all_pixels(_folder(tmp_path))[0, 4, 4], [200, 100, 50], atol=4)


def test_leaves_out_what_is_hidden_or_no_image(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    for name in ("._000.png", "notes.txt", "__MACOSX/000.png", ".cache/000.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    assert len(_folder(tmp_path)) == 2


def test_grey_files_give_one_channel(tmp_path: Path) -> None:
    pixels = random_pixels(3, channels=1)
    write_pngs(tmp_path, pixels)
    data = _folder(tmp_path)
    assert data.num_channels == 1
    np.testing.assert_array_equal(_all_pixels(data)[..., 0], pixels)


def test_one_coloured_file_makes_all_rgb(tmp_path: Path) -> None:
    grey = random_pixels(3, channels=1)
    write_pngs(tmp_path, grey)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "red.png")
    data = _folder(tmp_path)
    assert data.num_channels == 3
    np.testing.assert_array_equal(_all_pixels(data)[:3], np.repeat(grey[..., None], 3, -1))


@pytest.mark.parametrize(("mode", "channels"), [("LA", 1), ("RGBA", 3)])
def test_alpha_is_dropped(tmp_path: Path, mode: str, channels: int) -> None:
    pixels = random_pixels(1, channels=len(mode))[0]
    image = Image.fromarray(pixels)
    assert image.mode == mode
    image.save(tmp_path / "image.png")
    np.testing.assert_array_equal(_all_pixels(_folder(tmp_path))[0], pixels[..., :channels])


def test_palettes_are_colour(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4).save(tmp_path / "image.png")
    assert _all_pixels(_folder(tmp_path))[0, 0, 0].tolist() == [10, 200, 30]


def test_16_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(values).save(tmp_path / "image.png")
    np.testing.assert_array_equal(_all_pixels(_folder(tmp_path))[0, ..., 0], values // 256)


def test_bitmaps_are_black_and_white(tmp_path: Path) -> None:
    bits = random_pixels(1, channels=1)[0] > 127
    Image.fromarray(bits).save(tmp_path / "image.png")
    np.testing.assert_array_equal(_all_pixels(_folder(tmp_path))[0, ..., 0], bits * 255)


def test_floating_point_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "image.tif")
    with pytest.raises(ValueError, match=r"image\.tif has pixels of mode 'F', expected 8-bit or 16-bit"):
        _folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no images: expected files ending in \.png, \.jpg"):
        _folder(tmp_path)


def test_an_image_of_another_size_is_named(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    Image.new("RGB", (16, 16)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"large\.png has 16x16 pixels, expected 8x8"):
        _folder(tmp_path)


def test_an_image_that_is_not_square_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (16, 8)).save(tmp_path / "wide.png")
    with pytest.raises(ValueError, match=r"wide\.png has 16x8 pixels, expected 16x16"):
        _folder(tmp_path)


def test_the_resolution_asked_for_must_be_that_of_the_files(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    assert _folder(tmp_path, resolution=8).resolution == 8
    with pytest.raises(ValueError, match=r"000\.png has 8x8 pixels, expected 32x32"):
        _folder(tmp_path, resolution=32)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"broken\.png cannot be read as an image"):
        _folder(tmp_path)


def test_a_truncated_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    path = write_pngs(tmp_path, random_pixels(2))[1]
    path.write_bytes(path.read_bytes()[:100])
    data = _folder(tmp_path)
    with pytest.raises(ValueError, match=r"001\.png cannot be read as an image"):
        data.images_at([0, 1])


def test_damage_inside_a_zip_is_named(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images", random_pixels(1))
    archive = zip_folder(tmp_path / "images", tmp_path / "images.zip")
    raw = bytearray(archive.read_bytes())
    raw[raw.index(b"IDAT") + 8] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.raises(ValueError, match=r"images\.zip/000\.png cannot be read as an image"):
        ImageFiles(ZipFiles(archive)).images_at([0])


def test_a_file_that_is_no_zip_is_named(tmp_path: Path) -> None:
    (tmp_path / "images.zip").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"images\.zip cannot be read as a zip archive"):
        ZipFiles(tmp_path / "images.zip")


def test_classes_are_read_in_the_order_of_the_images(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(3))
    write_labels(tmp_path, [["002.png", 7], ["000.png", 1], ["001.png", 4], ["absent.png", 0]])
    labels = _folder(tmp_path).labels
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [1, 4, 7]


def test_label_vectors_are_read_from_a_zip(tmp_path: Path) -> None:
    write_pngs(tmp_path / "images" / "00", random_pixels(2))
    write_labels(tmp_path / "images", [["00\\000.png", [0, 1.5]], ["00/001.png", [2, 3]]])
    labels = ImageFiles(ZipFiles(zip_folder(tmp_path / "images", tmp_path / "images.zip"))).labels
    assert labels is not None
    assert labels.dtype == np.float32
    assert labels.tolist() == [[0, 1.5], [2, 3]]


def test_a_label_file_may_hold_no_labels(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    write_labels(tmp_path, None)
    assert _folder(tmp_path).labels is None


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([["000.png", 0]], r"no label for 001\.png \(1 of 2 images lack one\)"),
        ([["000.png", [0, 1]], ["001.png", [0]]], "mixes labels of different lengths"),
        ([["000.png", "cat"], ["001.png", "dog"]], "a class number or a list of numbers"),
        ([1, 2], "must hold"),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, labels: object, message: str) -> None:
    write_pngs(tmp_path, random_pixels(2))
    write_labels(tmp_path, labels)
    with pytest.raises(ValueError, match=message):
        _folder(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_label_file_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    write_pngs(tmp_path, random_pixels(2))
    (tmp_path / "dataset.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"dataset\.json must hold"):
        _folder(tmp_path)


def test_the_celeba_crop_keeps_the_rows_and_columns_of_the_authors(tmp_path: Path) -> None:
    rows, columns = np.indices((218, 178), np.uint8)
    Image.fromarray(np.stack([rows, columns, rows], -1)).save(tmp_path / "face.png")
    data = _folder(tmp_path, crop="celeba")
    face = _all_pixels(data)[0]
    assert face.shape == (data.resolution, data.resolution, 3) == (128, 128, 3)
    assert (face[0, 0, 0], face[-1, -1, 0]) == (57, 184)
    assert (face[0, 0, 1], face[-1, -1, 1]) == (25, 152)


def test_the_celeba_crop_needs_images_of_the_aligned_size(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(1))
    with pytest.raises(ValueError, match=r"000\.png has 8x8 pixels, expected 178x218"):
        _folder(tmp_path, crop="celeba")


def test_the_celeba_crop_has_one_resolution(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the celeba crop has 128x128 pixels, got resolution 64"):
        _folder(tmp_path, resolution=64, crop="celeba")


def test_an_unknown_crop_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="crop must be \"celeba\" or None, got 'ffhq'"):
        _folder(tmp_path, crop="ffhq")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'sc-layers\[train\]'"):
        _folder(tmp_path)
