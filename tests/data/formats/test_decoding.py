from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from sc_layers.data.formats.decoding import decode, parse_background, read_header
from tests.data.files import random_pixels
from tests.tolerances import LEVEL, LOSSY_LEVELS

WHITE = (255, 255, 255)


def _saved(image: Image.Image, kind: str, **options: object) -> Image.Image:
    """The image, written in a format and opened again."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def _decoded(image: Image.Image, background: tuple[int, int, int] = WHITE) -> np.ndarray:
    """Pixels [H, W, C] as the data sets read them."""
    grey = read_header(image).is_grey
    return decode(image, 1 if grey else 3, background)


def _with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


# Of a picture whose first row is stored as the side that the orientation names, what shows it upright.
UPRIGHT = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_pictures_are_turned_as_their_exif_data_tell(orientation: int, kind: str) -> None:
    pixels = np.ascontiguousarray(random_pixels(1, size=16)[0, :8])
    options = {"lossless": True} if kind == "WEBP" else {}
    image = _saved(Image.fromarray(pixels), kind, exif=_with_orientation(orientation), **options)
    header, expected = read_header(image), UPRIGHT[orientation](pixels)
    assert (header.height, header.width) == expected.shape[:2]
    np.testing.assert_array_equal(_decoded(image), expected)


def test_photographs_are_turned_as_their_exif_data_tell() -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255
    image = _saved(Image.fromarray(pixels), "JPEG", exif=_with_orientation(8))
    np.testing.assert_allclose(_decoded(image)[:, :, 0], np.rot90(pixels)[:, :, 0], atol=LOSSY_LEVELS)


@pytest.mark.parametrize("background", [(255, 255, 255), (0, 0, 0), (0x10, 0x80, 0xF0)])
def test_half_transparent_pixels_are_mixed_with_the_background(background: tuple[int, int, int]) -> None:
    image = _saved(Image.new("RGBA", (2, 2), (200, 100, 0, 128)), "PNG")
    mixed = [(128 * c + 127 * b) / 255 for c, b in zip((200, 100, 0), background, strict=True)]
    np.testing.assert_allclose(_decoded(image, background)[0, 0], mixed, atol=LEVEL)


def test_grey_with_alpha_stays_grey() -> None:
    image = _saved(Image.merge("LA", [Image.new("L", (2, 1), 80), Image.fromarray(np.uint8([[0, 255]]))]), "PNG")
    assert _decoded(image)[..., 0].tolist() == [[255, 80]]


@pytest.mark.parametrize("kind", ["PNG", "GIF", "WEBP"])
def test_transparent_entries_of_a_palette_show_the_background(kind: str) -> None:
    if kind == "WEBP":
        image = _saved(Image.new("RGBA", (2, 2), (9, 9, 9, 0)), kind, lossless=True)
    else:
        palette = Image.new("P", (2, 2), 1)
        palette.putpalette([200, 0, 0, 9, 9, 9])
        image = _saved(palette, kind, transparency=1)
    assert _decoded(image, (1, 2, 3))[0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_one_transparent_colour_shows_the_background(mode: str) -> None:
    colour = 7 if mode == "L" else (7, 8, 9)
    image = _saved(Image.new(mode, (2, 2), colour), "PNG", transparency=colour)
    assert set(_decoded(image)[0, 0]) == {255}


def test_palettes_are_colour() -> None:
    image = _saved(Image.new("RGB", (8, 8), (10, 200, 30)).quantize(4), "PNG")
    assert _decoded(image)[0, 0].tolist() == [10, 200, 30]


def test_bitmaps_are_black_and_white() -> None:
    bits = random_pixels(1, channels=1)[0] > 127
    np.testing.assert_array_equal(_decoded(_saved(Image.fromarray(bits), "PNG"))[..., 0], bits * 255)


@pytest.mark.parametrize("ink", range(4))
@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_inks_take_their_colour_from_white(kind: str, ink: int) -> None:
    inks = tuple(255 if ink == number else 0 for number in range(4))
    expected = [(0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0)][ink]
    np.testing.assert_allclose(
        _decoded(_saved(Image.new("CMYK", (8, 8), inks), kind))[4, 4], expected, atol=LOSSY_LEVELS
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_keeps_its_upper_bits(kind: str) -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    np.testing.assert_array_equal(_decoded(_saved(Image.fromarray(values), kind))[..., 0], values // 256)


def test_16_bit_grey_that_would_all_be_black_is_refused() -> None:
    values = np.arange(64, dtype=np.uint16).reshape(8, 8)
    with pytest.raises(ValueError, match="16-bit pixels of at most 63 of 65535, which is black"):
        _decoded(_saved(Image.fromarray(values), "TIFF"))


def test_a_black_picture_of_16_bits_is_black() -> None:
    assert not _decoded(_saved(Image.fromarray(np.zeros((8, 8), np.uint16)), "TIFF")).any()


def test_32_bit_integers_from_0_to_255_are_taken_as_they_are() -> None:
    values = np.arange(64, dtype=np.int32).reshape(8, 8) * 4
    np.testing.assert_array_equal(_decoded(_saved(Image.fromarray(values), "TIFF"))[..., 0], values)


@pytest.mark.parametrize(("value", "span"), [(256, "0 to 256"), (-1, "-1 to 0")])
def test_other_32_bit_integers_are_refused(value: int, span: str) -> None:
    values = np.zeros((8, 8), np.int32)
    values[0, 0] = value
    with pytest.raises(ValueError, match=f"32-bit integer pixels from {span}, expected 0 to 255"):
        _decoded(_saved(Image.fromarray(values), "TIFF"))


def test_floating_point_pixels_go_from_black_to_white() -> None:
    values = np.linspace(0, 1, 256, dtype=np.float32).reshape(16, 16)
    np.testing.assert_array_equal(_decoded(_saved(Image.fromarray(values), "TIFF"))[..., 0].ravel(), np.arange(256))


@pytest.mark.parametrize("value", [1.5, -0.5, 255.0, float("nan"), float("inf")])
def test_other_floating_point_pixels_are_refused(value: float) -> None:
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0] = value
    with pytest.raises(ValueError, match=r"floating-point pixels from .*, expected 0 to 1"):
        _decoded(_saved(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_several_pages_or_frames_are_refused(kind: str) -> None:
    pages = [Image.fromarray(page) for page in random_pixels(5)]
    image = _saved(pages[0], kind, save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match="5 pages or frames, expected one picture a file"):
        read_header(image)


def test_a_photograph_with_previews_behind_it_is_the_photograph() -> None:
    photograph, preview = Image.new("RGB", (16, 16), (200, 100, 50)), Image.new("RGB", (8, 8))
    image = _saved(photograph, "MPO", save_all=True, append_images=[preview])
    np.testing.assert_allclose(_decoded(image)[8, 8], [200, 100, 50], atol=LOSSY_LEVELS)


def test_pixels_that_cannot_be_shown_are_refused() -> None:
    with pytest.raises(ValueError, match="pixels of mode 'LAB', expected"):
        read_header(_saved(Image.new("LAB", (8, 8)), "TIFF"))


def test_16_bits_with_a_transparent_value_are_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(buffer, "PNG", transparency=0)
    with pytest.raises(ValueError, match="16-bit pixels of which one value is transparent"):
        read_header(Image.open(buffer))


def test_a_picture_too_large_for_memory_is_refused_by_its_header() -> None:
    chunk = b"IHDR" + struct.pack(">IIBBBBB", 13_000, 13_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.warns(Image.DecompressionBombWarning):
        image = Image.open(io.BytesIO(content))
    with pytest.raises(ValueError, match="13000x13000 pixels, more than the 100,000,000"):
        read_header(image)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read(tmp_path: Path) -> None:
    np.testing.assert_allclose(
        _decoded(_saved(Image.new("RGB", (8, 8), "red"), "AVIF"))[4, 4], [255, 0, 0], atol=LOSSY_LEVELS
    )


@pytest.mark.parametrize(
    ("text", "colour"), [("white", (255, 255, 255)), ("black", (0, 0, 0)), ("#0a80Ff", (0x0A, 0x80, 0xFF))]
)
def test_backgrounds_are_named_or_given_in_hexadecimal(text: str, colour: tuple[int, int, int]) -> None:
    assert parse_background(text) == colour


@pytest.mark.parametrize("text", ["red", "#fff", "#gggggg", ""])
def test_other_backgrounds_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"background must be white, black or #rrggbb, got {text!r}"):
        parse_background(text)
