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


def side_after_crop(width: int, height: int, crop: str | int | None) -> int:
    """Height and width of what a crop leaves of a picture.

    Args:
        width: the picture's width in pixels.
        height: likewise.
        crop: "center" (all that fits in the middle), "celeba", the side of a square in the middle, or None.

    Raises:
        ValueError: the picture has another size than the crop needs, or is not square and no crop is wanted.
    """
    if crop == "celeba":
        if (width, height) != CELEBA_SIZE:
            raise ValueError(f"it has {width}x{height} pixels, expected 178x218 for the celeba crop")
        return CELEBA_CROP
    if crop is None and height != width:
        raise ValueError(f"it has {width}x{height} pixels, expected a square; --crop center makes it one")
    side = crop if isinstance(crop, int) else min(width, height)
    if side > min(width, height):
        raise ValueError(f"it has {width}x{height} pixels, too few for a crop of {side}x{side}")
    return side


def crop_square(pixels: Pixels, crop: str | int | None) -> Pixels:
    """The square [S, S, C] that a crop leaves of pixels [H, W, C]; see `side_after_crop`.

    Raises:
        ValueError: the picture does not suit the crop.
    """
    height, width = pixels.shape[:2]
    side = side_after_crop(width, height, crop)
    if crop == "celeba":
        return pixels[CELEBA_ROWS, CELEBA_COLUMNS]
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


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
