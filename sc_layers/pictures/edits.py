"""Attributes that images take over from others, or flip, by their codes (paper, Fig. 6 and 10)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ..images import check_images, to_uint8
from .sheet import check_cells, draw_sheet, written

_ANGLES = (0, 30, 45, 60, 90)  # degrees
_NO_NAMES: Mapping[int, str] = {}
Seeded = tuple[Callable[..., Tensor], Tensor]  # a generator, and the codes [1, K] of one of its pictures


def with_codes_of(codes: Tensor, source: Tensor, dims: Sequence[int]) -> Tensor:
    """`codes` in which some come from another picture.

    Args:
        codes: [1, K].
        source: [1, K].
        dims: which codes are taken from `source`.

    Raises:
        ValueError: a code that does not exist.
    """
    return with_values(codes, {dim: float(source[0, dim]) for dim in _existing(dims, codes)})


def with_values(codes: Tensor, values: Mapping[int, float]) -> Tensor:
    """`codes` in which some have other values.

    Args:
        codes: [1, K].
        values: by number of the code.

    Raises:
        ValueError: a code that does not exist.
    """
    changed = codes.clone()
    for dim in _existing(values, codes):
        changed[:, dim] = values[dim]
    return changed


def _existing(dims: Iterable[int], codes: Tensor) -> list[int]:
    for dim in dims:
        if not 0 <= dim < codes.shape[1]:
            raise ValueError(f"code {dim} does not exist: there are {codes.shape[1]}, 0 to {codes.shape[1] - 1}")
    return list(dims)


@torch.no_grad()
def _image(generator: Callable[..., Tensor], codes: Tensor) -> Tensor:
    return to_uint8(check_images(generator(codes, noise_mode="const"), codes)).cpu()[0]


def transfer_sheet(
    sources: Mapping[str, Seeded], targets: Mapping[str, Seeded], attributes: Mapping[str, Sequence[int]], title: str
) -> Tensor:
    """A row for each source: as it is, and with each attribute of each target.

    Args:
        sources: generator and codes by the picture's name, such as "seed 3".
        targets: where attributes come from, likewise; the first row shows them.
        attributes: codes by the attribute's name.
        title: what stands over the sheet.

    Returns:
        uint8 [3, height, width].

    Raises:
        ValueError: a code that does not exist, or over 10,000 images.
    """
    columns = [(name, target) for name in attributes for target in targets]
    check_cells(1 + len(sources), 1 + len(columns))
    drawn = {target: _image(*seeded) for target, seeded in targets.items()}
    blank = torch.full_like(next(iter(drawn.values())), 255)
    rows = [torch.stack([blank, *(drawn[target] for _, target in columns)])]
    for generator, codes in sources.values():
        changed = [with_codes_of(codes, targets[target][1], attributes[name]) for name, target in columns]
        rows.append(torch.stack([_image(generator, one) for one in (codes, *changed)]))
    heads = ["as it is", *(f"{name} of {target}" for name, target in columns)]
    return draw_sheet(torch.stack(rows), ["takes from", *sources], heads, title)


def flip_sheet(sources: Mapping[str, Seeded], dims: Sequence[int], names: Mapping[int, str], title: str) -> Tensor:
    """A row for each source: as it is, and with the sign of each code turned.

    Args:
        sources: generator and codes by the picture's name, such as "seed 3".
        dims: the codes to turn, one a column.
        names: what codes are called, as far as they have names.
        title: what stands over the sheet.

    Returns:
        uint8 [3, height, width].

    Raises:
        ValueError: a code that does not exist, or over 10,000 images.
    """
    check_cells(len(sources), 1 + len(dims))
    rows = []
    for generator, codes in sources.values():
        flipped = [with_codes_of(codes, -codes, [dim]) for dim in dims]
        rows.append(torch.stack([_image(generator, one) for one in (codes, *flipped)]))
    heads = ["as it is", *(f"{names.get(dim, f'code {dim}')} flipped" for dim in dims)]
    return draw_sheet(torch.stack(rows), list(sources), heads, title)


def plane_sheet(
    generator: Callable[..., Tensor],
    base: Tensor,
    dims: tuple[int, int],
    values: Sequence[float],
    names: Mapping[int, str] = _NO_NAMES,
) -> Tensor:
    """The plane of two codes around a picture: one changes down, the other across (paper, Fig. 3).

    Args:
        generator: images from codes [B, K].
        base: the codes [1, K] of the picture.
        dims: the code that changes down, and the one that changes across.
        values: what they take.
        names: what codes are called, as far as they have names.

    Returns:
        uint8 [3, height, width].

    Raises:
        ValueError: a code that does not exist, one code twice, or over 10,000 images.
    """
    down, across = dims
    if down == across:
        raise ValueError(f"the plane needs two codes, got {down} twice")
    check_cells(len(values), len(values))
    rows = []
    for first in values:
        row = with_codes_of(base, torch.full_like(base, first), [down])
        codes = [with_codes_of(row, torch.full_like(base, second), [across]) for second in values]
        rows.append(torch.stack([_image(generator, one) for one in codes]))
    first_name, second_name = (names.get(dim, f"code {dim}") for dim in dims)
    labels = [f"{first_name}\n{written(value)}" for value in values]
    return draw_sheet(torch.stack(rows), labels, [written(value) for value in values], f"across: {second_name}")


def rotated_sheet(
    generator: Callable[..., Tensor],
    base: Tensor,
    dims: tuple[int, int],
    values: Sequence[float],
    names: Mapping[int, str] = _NO_NAMES,
) -> Tensor:
    """Sweeps along directions in the plane of two codes, each turned further from the first (paper, Fig. 3b, c).

    A sweep along a code itself changes one thing; one along a direction between them changes two at once.

    Args:
        generator: images from codes [B, K].
        base: the codes [1, K] of the picture; the two start at 0.
        dims: the two codes.
        values: how far along the direction each image lies.
        names: what codes are called, as far as they have names.

    Returns:
        uint8 [3, height, width].

    Raises:
        ValueError: a code that does not exist, or over 10,000 images.
    """
    check_cells(len(_ANGLES), len(values))
    rows = []
    for angle in _ANGLES:
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        codes = [with_values(base, {dims[0]: value * cos, dims[1]: value * sin}) for value in values]
        rows.append(torch.stack([_image(generator, one) for one in codes]))
    first_name, second_name = (names.get(dim, f"code {dim}") for dim in dims)
    labels = [first_name, *(f"turned by {angle}\u00b0" for angle in _ANGLES[1:-1]), second_name]
    return draw_sheet(torch.stack(rows), labels, [written(value) for value in values])
