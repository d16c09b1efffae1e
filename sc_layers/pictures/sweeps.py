"""Sweeps of single codes, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..images import check_images, image_grid, png_bytes, shown_masks, to_uint8
from ..models.latents import traversal_codes
from .sheet import draw_sheet, overlaid, written

_BATCH = 64


@dataclass(frozen=True)
class Sweep:
    """Images of one code after the other swept over a range.

    Attributes:
        dims: the D swept codes.
        images: uint8 [D, P, C, H, W], P points a sweep.
        masks: uint8 [D, C, H, W], the mean mask of each code over its sweep, all on the scale of `shown_masks`; black
            for a code that no mask constricts. None where the generator has no masks at all.
        values: the P values of a swept code.
    """

    dims: list[int]
    images: Tensor
    masks: Tensor | None
    values: list[float]

    def picture(self) -> Tensor:
        """Each row a code, its mask at the end; uint8 [C, height, width]."""
        rows = self.images if self.masks is None else torch.cat([self.images, self.masks.unsqueeze(1)], dim=1)
        return image_grid(rows.flatten(0, 1), rows.shape[1])

    def sheet(self, labels: Sequence[str] | None = None, title: str = "", overlay: bool = False) -> Tensor:
        """The same on white, each row and column labelled, with the scale of the masks; uint8 [3, height, width].

        Args:
            labels: what stands before each row; "code 3" and so on when None.
            title: what stands over it all.
            overlay: add a column of the middle image in which orange shows where the mask is open.

        Raises:
            ImportError: pillow is missing.
        """
        rows = self.images.expand(-1, -1, 3, -1, -1)
        heads = [written(value) for value in self.values]
        if self.masks is not None:
            rows = torch.cat([rows, self.masks.unsqueeze(1).expand(-1, -1, 3, -1, -1)], dim=1)
            heads = [*heads, "mask"]
        if self.masks is not None and overlay:
            middle = self.images[:, self.images.shape[1] // 2]
            masks = (self.masks[:, 0] / 255) ** 2  # brightness is the root
            where = torch.stack([overlaid(image, mask) for image, mask in zip(middle, masks, strict=True)])
            rows, heads = torch.cat([rows, where.unsqueeze(1)], dim=1), [*heads, "where"]
        labels = [f"code {dim}" for dim in self.dims] if labels is None else labels
        return draw_sheet(rows, labels, heads, title, mask_scale=self.masks is not None)

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the sheet."""
        return png_bytes(self.sheet())

    def frames(self) -> list[Tensor]:
        """The sweep to and fro, all codes side by side in one row, above their masks."""
        below = [] if self.masks is None else [self.masks]
        order = [*range(self.images.shape[1]), *range(self.images.shape[1] - 2, 0, -1)]
        columns = len(self.dims)
        return [image_grid(torch.cat([self.images[:, point], *below]), columns) for point in order]


@torch.no_grad()
def sweep_codes(
    generator: Any,
    base: Tensor,
    points: int = 7,
    bound: float | tuple[float, float] = 2.0,
    dims: list[int] | None = None,
) -> Sweep:
    """Sweep codes of a generator, one after the other, with fixed noise.

    Args:
        generator: called as `generator(codes, noise_mode="const", return_masks=True)`; its `masked_codes` names the
            code of each mask.
        base: the other codes' values, [K].
        points: images a sweep.
        bound: each code sweeps `linspace(-bound, bound)`, or from the first of two numbers to the second.
        dims: which codes; all when None.

    Raises:
        ValueError: images that are not finite.

    Source: SPEC, traversal grids.
    """
    codes = traversal_codes(base, points, bound, dims)
    parts = [generator(part, noise_mode="const", return_masks=True) for part in codes.flatten(0, 1).split(_BATCH)]
    made = check_images(torch.cat([part[0] for part in parts]), codes.flatten(0, 1))
    images = to_uint8(made).cpu().unflatten(0, codes.shape[:2])
    masks = torch.cat([part[1] for part in parts]).unflatten(0, codes.shape[:2]).mean(1)
    dims = list(range(len(base))) if dims is None else dims
    values = [float(codes[0, point, dims[0]]) for point in range(points)] if dims else []
    return Sweep(dims, images, _masks_of(generator, masks, dims, images.shape[2]), values)


def _masks_of(generator: Any, masks: Tensor, dims: list[int], channels: int) -> Tensor | None:
    """The mask of each swept code, from the mean masks [D, all masks, H, W] of the sweeps."""
    if not masks.shape[1]:
        return None
    shown = masks.new_zeros(len(dims), 1, *masks.shape[2:])
    masked_codes = generator.masked_codes
    for row, dim in enumerate(dims):
        if dim in masked_codes:
            index = masked_codes.index(dim)
            shown[row] = shown_masks(masks[row : row + 1, index : index + 1])[0]
    return to_uint8(shown * 2 - 1).expand(-1, channels, -1, -1).cpu()
