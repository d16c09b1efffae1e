"""Sheets of images that explain themselves: a label for every row, a head for every column, a scale for masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._optional import require
from ..images import shown_masks

_MOST_CELLS = 10_000
_LEAST_CELL = 72  # pixels: smaller images are enlarged by whole numbers
_FONT_SIZE = 13
_LINE = 17
_MARGIN = 8
_GAP = 2
_INK, _PAPER, _QUIET = (32, 32, 32), (255, 255, 255), (110, 110, 110)
_OVERLAY = (230, 159, 0)  # the orange of Okabe and Ito's palette, which the colour-blind tell from what is grey
_OVERLAY_SHARE = 0.7
_SCALE_WIDTH = 120
_SCALE_TEXTS = ("mask 0 ", " 1, the same for all codes; brightness is the root")


def overlaid(image: Tensor, mask: Tensor) -> Tensor:
    """An image with orange where a mask is open, as much as `shown_masks` makes the mask bright.

    Args:
        image: uint8 [C, H, W], C = 1 or 3.
        mask: in [0, 1], [H', W']; it is resized.

    Returns:
        uint8 [3, H, W].
    """
    size = (image.shape[1], image.shape[2])
    resized = torch.nn.functional.interpolate(mask[None, None].float(), size, mode="bilinear", align_corners=False)[0]
    share = _OVERLAY_SHARE * shown_masks(resized)
    colour = torch.tensor(_OVERLAY, dtype=torch.float32)[:, None, None]
    return torch.lerp(image.expand(3, -1, -1).float(), colour.expand(3, *size), share.expand(3, -1, -1)).to(torch.uint8)


def written(value: float) -> str:
    """A code's value as sheets have it: with its sign, at most two decimals.

    >>> written(0.666), written(-1e-9), written(2.0)
    ('+0.67', '0', '+2')

    Args:
        value: any finite number.
    """
    rounded = round(value, 2) + 0.0
    return f"{rounded:+g}" if rounded else "0"


def _size_of(draw: Any, text: str, font: Any) -> int:
    return int(max(draw.textlength(line, font=font) for line in text.splitlines() or [""]))


def check_cells(rows: int, columns: int) -> None:
    """Refuse a sheet of more images than anybody looks at, before they are made.

    Args:
        rows: how many.
        columns: how many.

    Raises:
        ValueError: over 10,000 images.
    """
    if rows * columns > _MOST_CELLS:
        raise ValueError(f"a sheet of {rows:,} x {columns:,} images is too large, at most {_MOST_CELLS:,} are drawn")


def beside(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures in one row, white where one is lower.

    Args:
        pictures: uint8 [C, H, W] each.
    """
    height = max(picture.shape[1] for picture in pictures)
    padded = [torch.nn.functional.pad(picture, (0, 0, 0, height - picture.shape[1]), value=255) for picture in pictures]
    return torch.cat(padded, dim=2)


def stacked(pictures: Sequence[Tensor]) -> Tensor:
    """Pictures in one column, white where one is narrower.

    Args:
        pictures: uint8 [C, H, W] each.
    """
    return beside([picture.transpose(1, 2) for picture in pictures]).transpose(1, 2)


def draw_sheet(
    rows: Tensor, labels: Sequence[str], heads: Sequence[str], title: str = "", mask_scale: bool = False
) -> Tensor:
    """Lay out rows of images on white, with text around them.

    Args:
        rows: uint8 [R, P, C, H, W], C = 1 or 3; images of under 72 pixels are enlarged by a whole number.
        labels: what stands before each row; it may have several lines.
        heads: what stands over each column, [P].
        title: what stands over the sheet.
        mask_scale: end with a bar that says which grey a mask has.

    Returns:
        uint8 [3, height, width].

    Raises:
        ValueError: another number of labels or heads than of rows or columns, or over 10,000 images.
        ImportError: pillow is missing.
    """
    if (len(labels), len(heads)) != (rows.shape[0], rows.shape[1]):
        shape = f"{rows.shape[0]} x {rows.shape[1]}"
        raise ValueError(f"{shape} images need as many labels and heads, got {len(labels)} and {len(heads)}")
    check_cells(len(labels), len(heads))
    images, drawing = require("PIL.Image", "train"), require("PIL.ImageDraw", "train")
    font = require("PIL.ImageFont", "train").load_default(_FONT_SIZE)
    factor = max(1, -(-_LEAST_CELL // min(rows.shape[3], rows.shape[4])))
    height, width = rows.shape[3] * factor, rows.shape[4] * factor
    ruler = drawing.Draw(images.new("RGB", (1, 1)))
    margin = max(_size_of(ruler, label, font) for label in labels) + 2 * _MARGIN
    column = max(width, max(_size_of(ruler, head, font) for head in heads)) + _GAP
    top = _MARGIN + _LINE * (1 + bool(title))
    right = margin + len(heads) * column + _MARGIN
    bottom = top + len(labels) * (height + _GAP) + (2 * _LINE if mask_scale else _MARGIN)
    legend = margin + _SCALE_WIDTH + _size_of(ruler, "".join(_SCALE_TEXTS), font) + 2 * _MARGIN if mask_scale else 0
    sheet = images.new("RGB", (max(right, legend, _size_of(ruler, title, font) + 2 * _MARGIN), bottom), _PAPER)
    draw = drawing.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN // 2), title, fill=_INK, font=font)
    for index, head in enumerate(heads):
        draw.text((margin + index * column + width / 2, top - _LINE), head, fill=_QUIET, font=font, anchor="ma")
    for row, label in enumerate(labels):
        y = top + row * (height + _GAP)
        lines = label.count("\n") + 1
        draw.multiline_text((_MARGIN, y + (height - lines * _LINE) / 2), label, fill=_INK, font=font)
        for index in range(len(heads)):
            array = np.moveaxis(rows[row, index].expand(3, -1, -1).cpu().numpy(), 0, 2)
            cell = images.fromarray(array).resize((width, height), images.Resampling.NEAREST)
            sheet.paste(cell, (margin + index * column, y))
    if mask_scale:
        _draw_scale(draw, images, sheet, font, (margin, bottom - _LINE - _MARGIN // 2))
    return torch.from_numpy(np.moveaxis(np.asarray(sheet), 2, 0).copy())


def _draw_scale(draw: Any, images: Any, sheet: Any, font: Any, corner: tuple[int, int]) -> None:
    """Which grey stands for which value of a mask."""
    bar = (255 * shown_masks(torch.linspace(0, 1, _SCALE_WIDTH))).to(torch.uint8).expand(_FONT_SIZE, -1)
    x, y = corner
    before, after = _SCALE_TEXTS
    draw.text((x, y), before, fill=_QUIET, font=font)
    x += int(draw.textlength(before, font=font))
    sheet.paste(images.fromarray(bar.numpy().copy()), (x, y + 2))
    draw.rectangle((x - 1, y + 1, x + _SCALE_WIDTH, y + 2 + _FONT_SIZE), outline=_QUIET)
    draw.text((x + _SCALE_WIDTH, y), after, fill=_QUIET, font=font)
