"""A picture file as a person sees it: upright, on a background, in 8 bits a channel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..._optional import require
from ..base import Pixels
from ..limits import MAX_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

Colour = tuple[int, int, int]

NAMED_COLOURS: dict[str, Colour] = {"white": (255, 255, 255), "black": (0, 0, 0)}

INTEGER_MODES = {"I", "I;16", "I;16L", "I;16B", "I;16N"}
GREY_MODES = {"1", "L", "LA", "La", "F", *INTEGER_MODES}
COLOUR_MODES = {"P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"}
ALPHA_MODES = {"LA", "La", "PA", "RGBA", "RGBa"}

# Formats whose further frames are previews, sizes or layers of the picture that is shown.
ONE_PICTURE = {"CUR", "ICNS", "ICO", "MPO", "PSD"}
# Formats whose 32-bit mode holds 16-bit values, by their definition or by what Pillow makes of them.
SIXTEEN_BIT = {"PNG", "PPM"}
ORIENTATION = 0x0112
TIFF_WIDTH, TIFF_HEIGHT = 256, 257
TURNED = range(5, 9)  # orientations that swap width and height


def parse_background(text: str) -> Colour:
    """The colour that `white`, `black` or `#rrggbb` names.

    Raises:
        ValueError: another text.
    """
    if text in NAMED_COLOURS:
        return NAMED_COLOURS[text]
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"background must be white, black or #rrggbb, got {text!r}")
    red, green, blue = bytes.fromhex(text[1:])
    return red, green, blue


@dataclass(frozen=True)
class Header:
    """What the beginning of a picture file tells.

    Attributes:
        width: in pixels, as it is shown.
        height: likewise.
        mode: Pillow's name for the kind of pixels.
        has_alpha: whether pixels can be transparent.
    """

    width: int
    height: int
    mode: str
    has_alpha: bool

    @property
    def is_grey(self) -> bool:
        """Whether the picture has no colours; palettes count as colour."""
        return self.mode in GREY_MODES


def _has_alpha(image: Image) -> bool:
    return image.mode in ALPHA_MODES or "transparency" in image.info


def _is_turned(image: Image) -> bool:
    # A PNG may have its EXIF data behind the pixels: to look for them would decode the file.
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return False
    # Pillow turns a TIFF by itself, and some versions tell its size as it is shown.
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if image.size != (tags[TIFF_WIDTH], tags[TIFF_HEIGHT]):
            return False
    return image.getexif().get(ORIENTATION, 1) in TURNED


def read_header(image: Image) -> Header:
    """What is known of an opened image before its pixels are decoded.

    Raises:
        ValueError: it is too large, has several pages or frames, or pixels of a kind that cannot be shown.
    """
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ValueError(f"it has {width}x{height} pixels, more than the {MAX_PIXELS:,} that are read of a picture")
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format not in ONE_PICTURE:
        raise ValueError(f"it has {frames} pages or frames, expected one picture a file")
    if image.mode not in GREY_MODES | COLOUR_MODES:
        raise ValueError(
            f"it has pixels of mode {image.mode!r}, expected {', '.join(sorted(GREY_MODES | COLOUR_MODES))}"
        )
    has_alpha = _has_alpha(image)
    if has_alpha and image.mode in INTEGER_MODES:
        raise ValueError("it has 16-bit pixels of which one value is transparent, expected an alpha channel or 8 bits")
    if _is_turned(image):
        width, height = height, width
    return Header(width, height, image.mode, has_alpha)


def _checked_range(values: np.ndarray, most: float, kind: str) -> None:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= most):  # NaN compares as false
        raise ValueError(f"it has {kind} pixels from {low:g} to {high:g}, expected 0 to {most:g}")


def _eight_bits(values: np.ndarray, mode: str, file_format: str | None) -> Pixels:
    """Grey pixels [H, W] of more than 8 bits as bytes.

    Raises:
        ValueError: their scale is not known, or they would all be black.
    """
    if mode == "F":
        _checked_range(values, 1, "floating-point")
        return np.round(values * np.float64(255)).astype(np.uint8)
    if mode == "I" and file_format not in SIXTEEN_BIT:
        _checked_range(values, 255, "32-bit integer")
        return values.astype(np.uint8)
    if 0 < values.max() < 256:
        raise ValueError(
            f"it has 16-bit pixels of at most {values.max()} of 65535, which is black; expected 8 bits then"
        )
    return (values >> 8).astype(np.uint8)


def decode(image: Image, num_channels: int, background: Colour) -> Pixels:
    """Pixels [H, W, C] of an opened picture.

    The orientation that its EXIF data tell is applied, and what is transparent shows the background. 16-bit pixels lose
    their lower 8 bits, floating-point ones go from 0 (black) to 1 (white), other 32-bit ones from 0 to 255.

    Args:
        image: accepted by `read_header`.
        num_channels: 1 for a picture without colours, 3 for RGB.
        background: colour behind transparent pixels.

    Raises:
        ValueError: pixels that have no meaning in 8 bits.
    """
    file_format, mode = image.format, image.mode
    image = require("PIL.ImageOps", "train").exif_transpose(image)
    pillow = require("PIL.Image", "train")
    if mode in INTEGER_MODES or mode == "F":
        image = pillow.fromarray(_eight_bits(np.asarray(image), mode, file_format))
    elif _has_alpha(image):
        canvas = pillow.new("RGBA", image.size, (*background, 255))
        image = pillow.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")
    pixels = np.asarray(image.convert("L" if num_channels == 1 else "RGB"))
    return pixels.reshape(image.height, image.width, num_channels)
