"""Traversal Perceptual Length: how far apart the images of a sweep along each code are (paper, Sec. 3.3)."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._optional import require
from ..images import figure_bytes, save_figure
from .distances import DistanceFunction, FeatureDistance, as_feature_distance, neighbour_distances
from .generators import SAMPLING, GeneratorFunction, Sampling, fixed_noise, number_of_codes, progress_bar

READINGS = ("points", "segments")
SWEEPS = ("fixed", "relative")


@dataclass(frozen=True)
class TPLSettings:
    """What is swept and how finely.

    Attributes:
        num_points: N of Eq. 11.
        reading: "points": N images a sweep, so N - 1 distances (the authors' program); "segments": N distances, so
            N + 1 images (Eq. 11 to the letter).
        num_traversals: base codes over which the expectation is taken.
        threshold: S of Eq. 12, the least tpl_i of an active code.
        sweep: "fixed": from -extent to extent; "relative": from c_i - extent to c_i + extent.
        extent: half the range; None is 4 for a fixed and 2 for a relative sweep.
        confidence: level of the bootstrap interval of the total, between 0 and 1.

    Raises:
        ValueError: a value out of range.
    """

    num_points: int = 25
    reading: str = "points"
    num_traversals: int = 10
    threshold: float = 0.3
    sweep: str = "fixed"
    extent: float | None = None
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise ValueError(f"reading must be one of {', '.join(READINGS)}, got {self.reading!r}")
        if self.sweep not in SWEEPS:
            raise ValueError(f"sweep must be one of {', '.join(SWEEPS)}, got {self.sweep!r}")
        if self.num_images < 2:
            raise ValueError(f"a sweep needs at least 2 images, got num_points={self.num_points} ({self.reading})")
        if self.num_traversals < 1:
            raise ValueError(f"num_traversals must be at least 1, got {self.num_traversals}")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be a finite number, got {self.threshold}")
        if self.extent is not None and not 0 < self.extent < math.inf:
            raise ValueError(f"extent must be positive and finite, got {self.extent}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}")

    @property
    def num_images(self) -> int:
        """Images a sweep."""
        return self.num_points + (self.reading == "segments")

    def positions(self) -> Tensor:
        """Values [num_images] float64 that a code takes, or that are added to it in a relative sweep."""
        extent = (4.0 if self.sweep == "fixed" else 2.0) if self.extent is None else self.extent
        return torch.linspace(-extent, extent, self.num_images, dtype=torch.float64)


TPL_PRESETS = {
    "tpl_small_0.3": TPLSettings(num_points=25, num_traversals=10, threshold=0.3),
    "tpl_large_0.3": TPLSettings(num_points=49, num_traversals=300, threshold=0.3),
    # The paper's tables: 48 segments are the 49 points of the authors' program.
    "tpl_celeba": TPLSettings(num_points=48, reading="segments", num_traversals=300, threshold=0.3),
    "tpl_ffhq": TPLSettings(num_points=48, reading="segments", num_traversals=300, threshold=0.5),
    "tpl_dsprites": TPLSettings(num_points=50, reading="segments", num_traversals=300, threshold=0.01),
}


def tpl_preset(name: str, **changes: Any) -> TPLSettings:
    """The settings of the preset `name`, with `changes` to some of them.

    Raises:
        ValueError: there is no such preset (the message lists those that are), or a value out of range.

    >>> tpl_preset("tpl_celeba", num_traversals=20).threshold
    0.3
    """
    if name not in TPL_PRESETS:
        raise ValueError(f"unknown TPL preset {name!r}; presets: {', '.join(TPL_PRESETS)}")
    return dataclasses.replace(TPL_PRESETS[name], **changes)


@dataclass(frozen=True)
class TraversalLength:
    """Result of `traversal_perceptual_length`.

    Attributes:
        pair_distances: distances of neighbouring images [T, K, n - 1], float64, of T traversals of K codes.
        base_codes: the codes [T, K] around which was swept.
        settings: what was measured.
        num_resamples: bootstrap resamples behind `interval`.
        seed: integer that fixes what the bootstrap draws.
    """

    pair_distances: Tensor
    base_codes: Tensor
    settings: TPLSettings
    num_resamples: int = 1000
    seed: int = 0

    @property
    def per_traversal(self) -> Tensor:
        """Lengths [T, K] of the single sweeps."""
        return self.pair_distances.sum(dim=2)

    @property
    def per_dim(self) -> Tensor:
        """tpl_i [K] of Eq. 11: mean length of the sweeps of code i."""
        return self.per_traversal.mean(dim=0)

    @property
    def std_per_dim(self) -> Tensor:
        """Standard deviation [K] over traversals (divided by T)."""
        return self.per_traversal.std(dim=0, correction=0)

    @property
    def active(self) -> Tensor:
        """act_i [K] of Eq. 12: tpl_i >= S."""
        return self.per_dim >= self.settings.threshold

    @property
    def num_active(self) -> int:
        """Number of active codes."""
        return int(self.active.sum())

    @property
    def total(self) -> float:
        """tpl of Eq. 12: sum of tpl_i over active codes."""
        return float(self.per_dim[self.active].sum())

    @property
    def mean(self) -> float:
        """Total over the number of ALL codes, as the authors' program reports it."""
        return self.total / len(self.per_dim)

    @property
    def mean_std(self) -> float:
        """Sum of the active codes' standard deviations over the number of all codes."""
        return float(self.std_per_dim[self.active].sum()) / len(self.per_dim)

    @property
    def norm(self) -> float:
        """sqrt(mean^2 + mean_std^2)."""
        return math.hypot(self.mean, self.mean_std)

    @property
    def ranking(self) -> list[int]:
        """Codes from the longest sweep to the shortest."""
        return torch.argsort(self.per_dim, descending=True, stable=True).tolist()

    @property
    def interval(self) -> tuple[float, float]:
        """Bootstrap percentile interval of the total, resampling traversals; the total itself, twice, where T = 1."""
        lengths = self.per_traversal
        draws = torch.Generator().manual_seed(self.seed)
        rows = torch.randint(len(lengths), (self.num_resamples, len(lengths)), generator=draws)
        means = torch.stack([lengths[resample].mean(dim=0) for resample in rows])
        totals = torch.where(means >= self.settings.threshold, means, 0).sum(dim=1)
        tail = (1 - self.settings.confidence) / 2
        low, high = torch.quantile(totals, torch.tensor([tail, 1 - tail], dtype=totals.dtype)).tolist()
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists, ready for JSON."""
        low, high = self.interval
        return {
            "total": self.total,
            "interval": [low, high],
            "confidence": self.settings.confidence,
            "mean": self.mean,
            "mean_std": self.mean_std,
            "norm": self.norm,
            "num_active": self.num_active,
            "threshold": self.settings.threshold,
            "per_dim": self.per_dim.tolist(),
            "std_per_dim": self.std_per_dim.tolist(),
            "active": self.active.tolist(),
            "ranking": self.ranking,
        }

    def table(self) -> str:
        """The codes from the longest sweep to the shortest, as text."""
        low, high = self.interval
        lines = [
            f"TPL {self.total:.4g}  ({self.settings.confidence:.0%} interval {low:.4g} to {high:.4g})",
            f"{self.num_active} of {len(self.per_dim)} codes active (tpl_i >= {self.settings.threshold:g})",
            "code      tpl_i        std  active",
        ]
        per_dim, std, active = self.per_dim.tolist(), self.std_per_dim.tolist(), self.active.tolist()
        for k in self.ranking:
            lines.append(f"{k:4d} {per_dim[k]:10.4g} {std[k]:10.4g}  {'yes' if active[k] else 'no'}")
        return "\n".join(lines)

    __str__ = table

    def figure(self) -> Any:
        """A bar plot of tpl_i, ordered, with standard deviations and the threshold, as a figure of matplotlib."""
        figure = require("matplotlib.figure", "metrics").Figure(figsize=(max(4.0, 0.35 * len(self.per_dim)), 3.2))
        axes = figure.add_subplot()
        order = self.ranking
        colors = ["tab:blue" if self.active[k] else "lightgrey" for k in order]
        bars = range(len(order))
        axes.bar(bars, self.per_dim[order].tolist(), yerr=self.std_per_dim[order].tolist(), color=colors, capsize=2)
        axes.axhline(self.settings.threshold, color="tab:red", linewidth=1, label=f"S = {self.settings.threshold:g}")
        axes.set_xticks(list(bars), [str(k) for k in order])
        axes.set(xlabel="code", ylabel="tpl_i", title=f"TPL {self.total:.4g}, {self.num_active} active")
        axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # leaves room for the legend
        axes.legend()
        return figure

    def _repr_png_(self) -> bytes:
        """What a notebook shows: the figure."""
        return figure_bytes(self.figure())

    def plot(self, path: str | Path) -> None:
        """Write `figure` to the file `path`."""
        save_figure(self.figure(), path)


def traversal_perceptual_length(
    generator: GeneratorFunction,
    num_codes: int | None = None,
    settings: TPLSettings | str = "tpl_small_0.3",
    *,
    distance: str | FeatureDistance | DistanceFunction = "lpips",
    base_codes: Tensor | None = None,
    sampling: Sampling = SAMPLING,
) -> TraversalLength:
    """Traversal Perceptual Length of any generator.

    tpl_i = E_c sum_{c_i in lin(-4, 4)} dis(G(c), G(c + step e_i))  (Eq. 11);  tpl = sum_i [tpl_i >= S] tpl_i  (Eq. 12).

    Every image is generated once and its features are computed once; images of many sweeps share a batch.

    Range: from 0, in units of the distance. Better: lower, among models with as many active codes. Weaknesses: a model
    that encodes few factors, or that is at the start of its training, has a short TPL too; the threshold S belongs to
    one distance and one kind of images, so numbers of different distances, presets or data can't be compared.

    Args:
        generator: images [B, C, H, W], about in -1..1 and of 1 or 3 channels, from codes [B, K] float32. A module whose
            `forward` takes `noise_mode` is called with "const", so that the noise does not change within a sweep; any
            other has to hold its noise fixed itself. A module is in evaluation mode meanwhile.
        num_codes: K; None takes the generator's `num_codes`, or the width of `base_codes`.
        settings: what is swept and how finely, or a preset's name: "tpl_small_0.3", "tpl_large_0.3", "tpl_celeba",
            "tpl_ffhq", "tpl_dsprites". `tpl_preset(name, **changes)` gives a changed one.
        distance: "lpips" (VGG16, the paper's), "lpips-alex", "lpips-squeeze", "efficientnet", "mse", a
            `FeatureDistance` (`make_distance` takes a weights file), or any function of two batches of images
            [B, 3, H, W] in 0..255 that returns [B].
        base_codes: the codes [T, K] to sweep around, instead of drawn ones; T replaces `num_traversals`.
        sampling: distribution and seed of the base codes, which is the seed of the bootstrap too, batch size, device,
            progress.

    Returns:
        The total, tpl_i, standard deviations, confidence interval, active codes and ranking.

    Raises:
        ValueError: settings out of range; images of a wrong shape or not finite, with what the generator returned;
            distances that are not finite.
        FileNotFoundError: the distance's weights are neither here nor can be downloaded.

    Source: paper Sec. 3.3; SPEC, TPL.

    >>> stripes = lambda codes: (codes / 50).view(-1, 1, 1, 2)
    >>> result = traversal_perceptual_length(stripes, 2, distance="mse")
    >>> result.num_active
    2
    """
    settings = tpl_preset(settings) if isinstance(settings, str) else settings
    bases = _base_codes(generator, num_codes, settings, base_codes, sampling)
    settings = dataclasses.replace(settings, num_traversals=len(bases))
    where = sampling.device_of(generator)
    measure = as_feature_distance(distance).to(where).eval()
    shape = (*bases.shape, settings.num_images)
    with fixed_noise(generator) as fixed, progress_bar(math.prod(shape), "TPL", sampling.progress) as bar:
        batches = _code_batches(bases, settings, sampling.batch_size)
        distances = neighbour_distances(fixed, measure, batches, shape, where, bar)
    result = TraversalLength(distances, bases, settings, seed=sampling.seed)
    if result.num_active < 2:
        warnings.warn(
            f"{result.num_active} of {bases.shape[1]} codes are active at threshold {settings.threshold:g}: "
            "the total says little about the whole representation",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def _base_codes(
    generator: GeneratorFunction,
    num_codes: int | None,
    settings: TPLSettings,
    base_codes: Tensor | None,
    sampling: Sampling,
) -> Tensor:
    """The codes [T, K] float64 on the CPU around which is swept."""
    if base_codes is None:
        return sampling.codes(settings.num_traversals, number_of_codes(generator, num_codes)).double()
    if base_codes.ndim != 2 or not base_codes.numel():
        raise ValueError(f"base_codes must have shape [T, K], got {tuple(base_codes.shape)}")
    if num_codes not in (None, base_codes.shape[1]):
        raise ValueError(f"num_codes is {num_codes}, but base_codes have shape {tuple(base_codes.shape)}")
    return base_codes.double().cpu()


def _code_batches(bases: Tensor, settings: TPLSettings, batch_size: int) -> Iterator[Tensor]:
    """All codes [B, K] of all sweeps: the traversal runs slowest, then the code, then the position."""
    positions = settings.positions()
    num_traversals, num_codes = bases.shape
    for start in range(0, num_traversals * num_codes * len(positions), batch_size):
        index = torch.arange(start, min(start + batch_size, num_traversals * num_codes * len(positions)))
        code = index // len(positions) % num_codes
        codes = bases[index // len(positions) // num_codes]
        values = positions[index % len(positions)]
        rows = torch.arange(len(index))
        codes[rows, code] = values if settings.sweep == "fixed" else codes[rows, code] + values
        yield codes
