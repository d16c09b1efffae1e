"""Pictures: value ranges, grids, code traversals, PNG and GIF files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .._optional import require

WHITE = 255


def to_uint8(images: Tensor) -> Tensor:
    """Images in [-1, 1] as bytes: `rint(x * 127.5 + 127.5)`, clamped. Any shape, uint8."""
    return (images.float() * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8)


def to_network_range(images: Tensor) -> Tensor:
    """Bytes as float32 images in [-1, 1]: `x * 2 / 255 - 1`. Any shape."""
    return images.to(torch.float32) * (2 / 255) - 1


def image_grid(images: Tensor, columns: int, outline: bool = True) -> Tensor:
    """Lay images out in rows.

    Args:
        images: uint8 [N, C, H, W], N a multiple of `columns`.
        columns: images a row.
        outline: paint each image's outermost pixels white, so that neighbours can be told apart.

    Returns:
        uint8 [C, N / columns * H, columns * W].

    Raises:
        ValueError: N is no multiple of `columns`, or the images are not uint8.

    Source: SPEC, traversal grids of the authors' program.
    """
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"images must be uint8 [N, C, H, W], got {images.dtype} {tuple(images.shape)}")
    if columns < 1 or len(images) % columns:
        raise ValueError(f"{len(images)} images do not fill rows of {columns}")
    if outline:
        images = images.clone()
        images[..., [0, -1], :] = WHITE
        images[..., [0, -1]] = WHITE
    _, channels, height, width = images.shape
    grid = images.view(-1, columns, channels, height, width).permute(2, 0, 3, 1, 4)
    return grid.reshape(channels, -1, columns * width)


def normalize_masks(masks: Tensor) -> Tensor:
    """Stretch each code's masks to [0, 1] over the whole batch, so that faint masks can be seen.

    Args:
        masks: [N, K, H, W].

    Returns:
        Same shape; a code whose masks are constant becomes 0.

    Source: SPEC, mask pictures of the authors' program.
    """
    low, high = masks.amin((0, 2, 3), keepdim=True), masks.amax((0, 2, 3), keepdim=True)
    return (masks - low) / (high - low).clamp_min(torch.finfo(masks.dtype).tiny)


def traversal_codes(base: Tensor, points: int, bound: float = 2.0, dims: list[int] | None = None) -> Tensor:
    """Codes in which one entry after the other sweeps `linspace(-bound, bound)` while the rest keep `base`.

    Args:
        base: [K].
        points: codes a sweep, at least 2.
        bound: half of the sweep's range.
        dims: which codes to sweep, in this order; all of them when None.

    Returns:
        [D, points, K] where D is the number of swept codes.

    Raises:
        ValueError: fewer than two points, or a code that does not exist.
    """
    if points < 2:
        raise ValueError(f"a sweep needs at least 2 points, got {points}")
    dims = list(range(len(base))) if dims is None else dims
    for dim in dims:
        if not 0 <= dim < len(base):
            raise ValueError(f"code {dim} does not exist: there are {len(base)} codes, 0 to {len(base) - 1}")
    codes = base.repeat(len(dims), points, 1)
    sweep = torch.linspace(-bound, bound, points, dtype=base.dtype, device=base.device)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = sweep
    return codes


def _as_pil_array(image: Tensor) -> np.ndarray:
    array = image.cpu().numpy()
    return array[0] if array.shape[0] == 1 else np.moveaxis(array, 0, 2)


def save_png(image: Tensor, path: str | Path) -> None:
    """Write a uint8 picture [C, H, W], C = 1 or 3, as PNG, whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    require("PIL.Image", "train").fromarray(_as_pil_array(image)).save(partial, format="PNG")
    partial.replace(path)


def save_gif(frames: list[Tensor], path: str | Path, milliseconds: int = 120) -> None:
    """Write uint8 pictures [C, H, W] as an endless GIF, whole or not at all."""
    path = Path(path)
    partial = path.with_name(path.name + ".part")
    pictures = [require("PIL.Image", "train").fromarray(_as_pil_array(frame)) for frame in frames]
    options = {"save_all": True, "append_images": pictures[1:], "duration": milliseconds, "loop": 0}
    pictures[0].save(partial, format="GIF", **options)
    partial.replace(path)
