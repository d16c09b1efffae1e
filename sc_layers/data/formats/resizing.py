"""Cut and resample one picture."""

from __future__ import annotations

import re

import numpy as np

from ..._optional import require
from ..base import Pixels

FILTERS = ("lanczos", "box")
CELEBA_SIZE = (178, 218)  # width and height of the aligned images of CelebA
CELEBA_ROWS, CELEBA_COLUMNS = slice(57, 185), slice(25, 153)  # what the authors keep of them
CELEBA_CROP = 128


def celeba_crop(pixels: Pixels) -> Pixels:
    """The face [128, 128, C] in an aligned image [218, 178, C] of CelebA.

    Raises:
        ValueError: an image of another size.
    """
    if pixels.shape[1::-1] != CELEBA_SIZE:
        raise ValueError(f"it has {pixels.shape[1]}x{pixels.shape[0]} pixels, expected 178x218 for the celeba crop")
    return pixels[CELEBA_ROWS, CELEBA_COLUMNS]


def centre_crop(pixels: Pixels, size: int) -> Pixels:
    """The square [size, size, C] in the middle of a picture [H, W, C].

    Raises:
        ValueError: the picture is smaller.
    """
    height, width = pixels.shape[:2]
    if size > min(height, width):
        raise ValueError(f"it has {width}x{height} pixels, too few for a crop of {size}x{size}")
    top, left = (height - size) // 2, (width - size) // 2
    return pixels[top : top + size, left : left + size]


def parse_crop(text: str) -> str | int:
    """`center`, `celeba`, or the side of a crop from the middle, written as `128x128`.

    Raises:
        ValueError: another text.
    """
    if text in ("center", "celeba"):
        return text
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or match[1] != match[2] or int(match[1]) < 1:
        raise ValueError(f"crop must be center, celeba or a square such as 128x128, got {text!r}")
    return int(match[1])


def crop_square(pixels: Pixels, crop: str | int | None) -> Pixels:
    """A square part of a picture [H, W, C]: all that fits in the middle, the celeba crop, or of so many pixels.

    Raises:
        ValueError: the picture has another size than the crop needs, or is not square and no crop is wanted.
    """
    height, width = pixels.shape[:2]
    if crop is None:
        if height != width:
            raise ValueError(f"it has {width}x{height} pixels, expected a square; --crop center makes it one")
        return pixels
    if crop == "celeba":
        return celeba_crop(pixels)
    return centre_crop(pixels, min(height, width) if isinstance(crop, str) else crop)


def resize(pixels: Pixels, size: int, kind: str) -> Pixels:
    """A square picture [H, W, C] resampled to [size, size, C]; as it is where it has that size.

    Args:
        pixels: uint8.
        size: height and width of the result.
        kind: "lanczos" (sharp) or "box" (means of areas).
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    pillow = require("PIL.Image", "train")
    grey = pixels.shape[2] == 1
    image = pillow.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    resized = np.asarray(image.resize((size, size), pillow.Resampling[kind.upper()]))
    return resized[..., None] if grey else resized
