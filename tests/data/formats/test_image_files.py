from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sc_layers.data import ImageFiles, PictureFiles, open_dataset
from sc_layers.data.formats.files import FolderFiles
from tests.data.files import random_pixels, write_labels, write_pngs, zip_folder


def _folder(path: Path, resolution: int | None = None, crop: str | None = None) -> ImageFiles:
    return ImageFiles(PictureFiles(FolderFiles(path)), resolution, crop)


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
    data = open_dataset(zip_folder(tmp_path / "images", tmp_path / "images.zip", compression))
    np.testing.assert_array_equal(_all_pixels(data), pixels)


def test_reads_chosen_images(tmp_path: Path) -> None:
    pixels = random_pixels(5)
    write_pngs(tmp_path, pixels)
    images = _folder(tmp_path).images_at([4, 0, 4])
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1), pixels[[4, 0, 4]])


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
        open_dataset(archive).images_at([0])


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
    write_pngs(tmp_path, random_pixels(1))
    with pytest.raises(ValueError, match="the celeba crop has 128x128 pixels, got resolution 64"):
        _folder(tmp_path, resolution=64, crop="celeba")


def test_an_unknown_crop_is_refused(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(1))
    with pytest.raises(ValueError, match="crop must be \"celeba\" or None, got 'ffhq'"):
        _folder(tmp_path, crop="ffhq")


def test_without_pillow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ImportError, match=r"pip install 'sc-layers\[train\]'"):
        _folder(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(
        ValueError, match=r"no images that Pillow reads, such as \.png or \.jpg, 1 file left out: \.txt \(1\)"
    ):
        _folder(tmp_path)


def test_the_number_of_files_left_out_and_why_is_noted(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    for name in ("._000.png", "a.txt", "b.txt", "README"):
        (tmp_path / name).write_bytes(b"no image")
    assert _folder(tmp_path).notes == ("2 images, 4 files left out: .txt (2), hidden (1), without suffix (1)",)


def test_alpha_shows_the_background_and_is_noted(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(1))
    Image.new("RGBA", (8, 8), (200, 0, 0, 0)).save(tmp_path / "clear.png")
    for background, colour in (("white", 255), ("black", 0)):
        data = open_dataset(tmp_path, background=background)
        assert (data.images_at([1]) == colour).all()
        assert data.notes == (f"1 of 2 images with an alpha channel, shown on {background}",)


def test_grey_files_with_alpha_are_grey_on_grey_and_coloured_on_a_colour(tmp_path: Path) -> None:
    Image.new("LA", (8, 8), (90, 0)).save(tmp_path / "clear.png")
    assert open_dataset(tmp_path, background="#333333").images_at([0]).flatten(2).unique(dim=2).tolist() == [[[0x33]]]
    colours = open_dataset(tmp_path, background="#1080f0").images_at([0]).flatten(2).unique(dim=2)
    assert colours.tolist() == [[[0x10], [0x80], [0xF0]]]


def test_labels_are_not_read_for_images(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    write_labels(tmp_path, [["000.png", "cat"]])
    data = open_dataset(tmp_path)
    assert data.images_at([0, 1]).shape == (2, 3, 8, 8)
    assert data.label_file == "dataset.json"


def test_celeba_without_its_crop_names_the_option(tmp_path: Path) -> None:
    Image.new("RGB", (178, 218)).save(tmp_path / "face.jpg")
    with pytest.raises(ValueError, match=r"face\.jpg has 178x218 pixels.* give --crop celeba"):
        open_dataset(tmp_path)


def test_mixed_sizes_name_the_command_that_converts_them(tmp_path: Path) -> None:
    for size in (40, 100):
        Image.new("RGB", (size, size)).save(tmp_path / f"{size}.png")
    with pytest.raises(
        ValueError, match=r"40\.png has 40x40 .*`sc-layers dataset convert .* --crop center --resolution 64`"
    ):
        open_dataset(tmp_path)


def test_an_upright_picture_is_measured_as_it_is_shown(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (218, 178)).save(tmp_path / "turned.jpg", exif=exif)
    assert open_dataset(tmp_path, crop="celeba").images_at([0]).shape == (1, 3, 128, 128)


def test_large_images_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    Image.new("1", (5000, 5000)).save(tmp_path / "large.png")
    with pytest.raises(ValueError, match=r"has images of 5000 pixels, expected at most 4096: make the sizes .*convert"):
        open_dataset(tmp_path)


def test_damaged_headers_are_left_out_on_request_and_counted(tmp_path: Path) -> None:
    write_pngs(tmp_path, random_pixels(2))
    (tmp_path / "broken.png").write_bytes(b"no image")
    data = open_dataset(tmp_path, skip_bad=True)
    assert len(data) == 2
    assert data.notes[0].startswith(f"1 damaged file left out: {tmp_path / 'broken.png'} cannot be read as an image")
