"""Accumulated perceptual distance under rotation of a pair of codes (paper, Eq. 10 and Fig. 3d)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._optional import require
from ..images import figure_bytes, save_figure
from .distances import DistanceFunction, FeatureDistance, as_feature_distance, neighbour_distances
from .generators import SAMPLING, GeneratorFunction, Sampling, fixed_noise, number_of_codes, progress_bar

HALF_TURN = 180.0


def rotated_codes(base: Tensor, pair: tuple[int, int], angle: float, num_points: int, extent: float = 4.0) -> Tensor:
    """Codes of an N x N grid in the plane of two codes, rotated.

    With (u, v) in grid(-extent, extent), u running fastest: c_1 = u cos(a) + v sin(a), c_2 = v cos(a) - u sin(a).

    Args:
        base: values [K] of the other codes.
        pair: the two codes.
        angle: a, in degrees.
        num_points: N.
        extent: half the range.

    Returns:
        [N, N, K], the dtype of `base`.

    Source: paper Eq. 10; SPEC, rotation curve.
    """
    ticks = torch.linspace(-extent, extent, num_points, dtype=torch.float64)
    v, u = torch.meshgrid(ticks, ticks, indexing="ij")
    sin, cos = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    codes = base.repeat(num_points, num_points, 1)
    codes[..., pair[0]] = (u * cos + v * sin).to(base.dtype)
    codes[..., pair[1]] = (v * cos - u * sin).to(base.dtype)
    return codes


@dataclass(frozen=True)
class RotationCurve:
    """dis_cum over angles.

    Attributes:
        pair: the two codes.
        angles: degrees, increasing.
        distances: dis_cum at each.
    """

    pair: tuple[int, int]
    angles: tuple[float, ...]
    distances: tuple[float, ...]

    @property
    def minima(self) -> list[float]:
        """Angles of the strict local minima. The curve repeats after half a turn, which decides at the ends."""
        found = []
        for i, value in enumerate(self.distances):
            around = [self._neighbour(i, step) for step in (-1, 1)]
            if all(other is not None and value < other for other in around):
                found.append(self.angles[i])
        return found

    def _neighbour(self, index: int, step: int) -> float | None:
        if 0 <= index + step < len(self.angles):
            return self.distances[index + step]
        # One step further than the end, looked up half a turn (or several) back.
        beyond = self.angles[index] + (self.angles[index] - self.angles[index - step] if len(self.angles) > 1 else 0)
        for angle, value in zip(self.angles, self.distances, strict=True):
            turns = (angle - beyond) / HALF_TURN
            if abs(turns - round(turns)) < 1e-6 and round(turns) != 0:
                return value
        return None

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists, ready for JSON."""
        return {
            "codes": list(self.pair),
            "angles": list(self.angles),
            "distances": list(self.distances),
            "minima": self.minima,
        }

    def table(self) -> str:
        """As text, minima marked."""
        minima = set(self.minima)
        lines = ["  angle   dis_cum"]
        for angle, value in zip(self.angles, self.distances, strict=True):
            lines.append(f"{angle:7.1f} {value:9.4g}" + ("  minimum" if angle in minima else ""))
        return "\n".join(lines)

    __str__ = table

    def figure(self) -> Any:
        """The curve as a figure of matplotlib, with a dashed line at each local minimum (Fig. 3d)."""
        figure = require("matplotlib.figure", "metrics").Figure(figsize=(5, 3.2))
        axes = figure.add_subplot()
        axes.plot(self.angles, self.distances, marker="o", markersize=3)
        for angle in self.minima:
            axes.axvline(angle, color="tab:blue", linestyle="--", linewidth=1)
        axes.set(
            xlabel="rotation (degrees)",
            ylabel="accumulated distance",
            title=f"codes {self.pair[0]} and {self.pair[1]} rotated",
        )
        axes.xaxis.set_major_locator(require("matplotlib.ticker", "metrics").MultipleLocator(45))
        return figure

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the figure."""
        return figure_bytes(self.figure())

    def plot(self, path: str | Path) -> None:
        """Write `figure` to the file `path`."""
        save_figure(self.figure(), path)


def rotation_curve(
    generator: GeneratorFunction,
    pair: tuple[int, int],
    num_codes: int | None = None,
    *,
    angles: Sequence[float] = tuple(range(-90, 181, 15)),
    num_points: int = 9,
    extent: float = 4.0,
    distance: str | FeatureDistance | DistanceFunction = "lpips",
    base: Tensor | None = None,
    sampling: Sampling = SAMPLING,
) -> RotationCurve:
    """dis_cum(a) = sum over grid(-4, 4) of dis(G(R(a)(c_1, c_2)), G(R(a)(c_1 + step, c_2)))  (Eq. 10).

    Each image is generated once and looked at once. The curve of interpretable codes has minima at multiples of 90
    degrees.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K]; noise as in `traversal_perceptual_length`.
        pair: the two codes that are rotated.
        num_codes: K; None takes the generator's `num_codes`, or the length of `base`.
        angles: degrees, increasing.
        num_points: N, points on a side of the grid; a row of N images has N - 1 distances.
        extent: half the side of the grid.
        distance: see `traversal_perceptual_length`.
        base: values [K] of the other codes; None draws them.
        sampling: distribution and seed of the base codes, batch size, device, progress.

    Raises:
        ValueError: codes that do not exist or are the same, or settings out of range.
    """
    base = _base(generator, num_codes, base, sampling)
    _check(pair, len(base), angles, num_points)
    where = sampling.device_of(generator)
    measure = as_feature_distance(distance).to(where).eval()
    shape = (len(angles), num_points, num_points)
    codes = torch.cat([rotated_codes(base, pair, angle, num_points, extent).flatten(0, 1) for angle in angles])
    with fixed_noise(generator) as fixed, progress_bar(math.prod(shape), "rotation", sampling.progress) as bar:
        distances = neighbour_distances(fixed, measure, iter(codes.split(sampling.batch_size)), shape, where, bar)
    return RotationCurve(pair, tuple(map(float, angles)), tuple(distances.sum(dim=(1, 2)).tolist()))


def _base(generator: GeneratorFunction, num_codes: int | None, base: Tensor | None, sampling: Sampling) -> Tensor:
    if base is None:
        return sampling.codes(1, number_of_codes(generator, num_codes))[0].double()
    if base.ndim != 1:
        raise ValueError(f"base must have shape [K], got {tuple(base.shape)}")
    return base.double().cpu()


def _check(pair: tuple[int, int], num_codes: int, angles: Sequence[float], num_points: int) -> None:
    if len(pair) != 2 or pair[0] == pair[1]:
        raise ValueError(f"two different codes are rotated, got {', '.join(map(str, pair))}")
    for code in pair:
        if not 0 <= code < num_codes:
            raise ValueError(f"code {code} does not exist: there are {num_codes} codes, 0 to {num_codes - 1}")
    if num_points < 2:
        raise ValueError(f"the grid needs at least 2 points a side, got {num_points}")
    if not len(angles) or any(b <= a for a, b in itertools.pairwise(angles)):
        raise ValueError("angles must be increasing, and at least one")
