"""Traversal Perceptual Length: how far apart the images of a sweep along each code are (paper, Sec. 3.3)."""

from __future__ import annotations

import contextlib
import functools
import inspect
import math
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .._optional import require
from ..images import check_images, image_grid, save_png, to_uint8
from ..models.latents import traversal_codes
from .distances import DistanceFunction, FeatureDistance, Features, as_feature_distance, prepare_images
from .report import append_result

GeneratorFunction = Callable[[Tensor], Tensor]
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
    """

    num_points: int = 25
    reading: str = "points"
    num_traversals: int = 10
    threshold: float = 0.3
    sweep: str = "fixed"
    extent: float | None = None

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
    "celeba": TPLSettings(num_points=48, reading="segments", num_traversals=300, threshold=0.3),
    "ffhq": TPLSettings(num_points=48, reading="segments", num_traversals=300, threshold=0.5),
    "dsprites": TPLSettings(num_points=50, reading="segments", num_traversals=300, threshold=0.01),
}


def tpl_preset(name: str) -> TPLSettings:
    """The settings of the preset `name`.

    Raises:
        ValueError: there is no such preset; the message lists those that are.
    """
    if name not in TPL_PRESETS:
        raise ValueError(f"unknown TPL preset {name!r}; presets: {', '.join(TPL_PRESETS)}")
    return TPL_PRESETS[name]


@dataclass(frozen=True)
class TraversalLength:
    """Result of `traversal_perceptual_length`.

    Attributes:
        pair_distances: distances of neighbouring images [T, K, n - 1], float64, of T traversals of K codes.
        base_codes: the codes [T, K] around which was swept.
        settings: what was measured.
        confidence: level of `interval`, in 0..1.
        num_resamples: bootstrap resamples behind `interval`.
        seed: of the bootstrap.
    """

    pair_distances: Tensor
    base_codes: Tensor
    settings: TPLSettings
    confidence: float = 0.95
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
        tail = (1 - self.confidence) / 2
        low, high = torch.quantile(totals, torch.tensor([tail, 1 - tail], dtype=totals.dtype)).tolist()
        return low, high

    def to_dict(self) -> dict[str, Any]:
        """Numbers and lists, ready for JSON."""
        low, high = self.interval
        return {
            "total": self.total,
            "interval": [low, high],
            "confidence": self.confidence,
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
            f"TPL {self.total:.4g}  ({self.confidence:.0%} interval {low:.4g} to {high:.4g})",
            f"{self.num_active} of {len(self.per_dim)} codes active (tpl_i >= {self.settings.threshold:g})",
            "code      tpl_i        std  active",
        ]
        per_dim, std, active = self.per_dim.tolist(), self.std_per_dim.tolist(), self.active.tolist()
        for k in self.ranking:
            lines.append(f"{k:4d} {per_dim[k]:10.4g} {std[k]:10.4g}  {'yes' if active[k] else 'no'}")
        return "\n".join(lines)

    __str__ = table

    def plot(self, path: str | Path) -> None:
        """Write a bar plot of tpl_i, ordered, with standard deviations and the threshold."""
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
        figure.savefig(path, bbox_inches="tight", dpi=120)


def traversal_perceptual_length(
    generator: GeneratorFunction,
    num_codes: int | None = None,
    *,
    preset: str = "tpl_small_0.3",
    num_points: int | None = None,
    reading: Literal["points", "segments"] | None = None,
    num_traversals: int | None = None,
    threshold: float | None = None,
    sweep: Literal["fixed", "relative"] | None = None,
    extent: float | None = None,
    distance: str | FeatureDistance | DistanceFunction = "lpips",
    weights: str | Path | None = None,
    base_codes: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    confidence: float = 0.95,
    progress: bool = False,
) -> TraversalLength:
    """Traversal Perceptual Length of any generator.

    tpl_i = E_c sum_{c_i in lin(-4, 4)} dis(G(c), G(c + step e_i))  (Eq. 11);  tpl = sum_i [tpl_i >= S] tpl_i  (Eq. 12).

    Every image is generated once and its features are computed once; images of many sweeps share a batch.

    Args:
        generator: images [B, C, H, W], about in -1..1 and of 1 or 3 channels, from codes [B, K] float32. A module whose
            `forward` takes `noise_mode` is called with "const", so that the noise does not change within a sweep; any
            other has to hold its noise fixed itself. A module is in eval mode meanwhile.
        num_codes: K; None takes the generator's `num_codes`, or the width of `base_codes`.
        preset: settings where the following are None: "tpl_small_0.3", "tpl_large_0.3", "celeba", "ffhq", "dsprites".
        num_points: N of Eq. 11.
        reading: "points" (N images, the authors' program) or "segments" (N distances, N + 1 images).
        num_traversals: base codes, drawn from N(0, 1).
        threshold: S of Eq. 12.
        sweep: "fixed" from -extent to extent, or "relative" to the base code.
        extent: half the range; 4 for a fixed and 2 for a relative sweep.
        distance: "lpips" (VGG16, the paper's), "lpips-alex", "lpips-squeeze", "efficientnet", "mse", a
            `FeatureDistance`, or any function of two batches of images [B, 3, H, W] in 0..255 that returns [B].
        weights: file of the distance's weights, see `sc_layers.metrics.distances.make_distance`.
        base_codes: the codes [T, K] to sweep around, instead of drawn ones.
        seed: of the base codes and of the bootstrap.
        batch_size: images a pass.
        device: where to compute; None takes the generator's, or the CPU.
        confidence: of the bootstrap interval of the total.
        progress: show a progress bar with the time left.

    Returns:
        The total, tpl_i, standard deviations, confidence interval, active codes and ranking.

    Raises:
        ValueError: settings out of range; images of a wrong shape or not finite, with what the generator returned;
            distances that are not finite.
        FileNotFoundError: the distance's weights are neither here nor can be downloaded.

    Source: paper Sec. 3.3; SPEC, TPL.
    """
    settings = _settings(preset, num_points, reading, num_traversals, threshold, sweep, extent, base_codes)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    where = device_of(generator) if device is None else torch.device(device)
    bases = _base_codes(generator, num_codes, settings, base_codes, seed)
    measure = as_feature_distance(distance, weights).to(where).eval()
    shape = (*bases.shape, settings.num_images)
    with fixed_noise(generator) as fixed, progress_bar(math.prod(shape), "TPL", progress) as bar:
        batches = _code_batches(bases, settings, batch_size)
        distances = neighbour_distances(fixed, measure, batches, shape, where, bar)
    result = TraversalLength(distances, bases, settings, confidence, seed=seed)
    if result.num_active < 2:
        warnings.warn(
            f"{result.num_active} of {bases.shape[1]} codes are active at threshold {settings.threshold:g}: "
            "the total says little about the whole representation",
            RuntimeWarning,
            stacklevel=2,
        )
    return result


def _settings(preset: str, *values: Any) -> TPLSettings:
    names = ("num_points", "reading", "num_traversals", "threshold", "sweep", "extent")
    *given, base_codes = values
    chosen = {name: value for name, value in zip(names, given, strict=True) if value is not None}
    if base_codes is not None:
        if base_codes.ndim != 2 or not base_codes.numel():
            raise ValueError(f"base_codes must have shape [T, K], got {tuple(base_codes.shape)}")
        if chosen.setdefault("num_traversals", len(base_codes)) != len(base_codes):
            raise ValueError(
                f"num_traversals is {chosen['num_traversals']}, but there are {len(base_codes)} base_codes"
            )
    base = tpl_preset(preset)
    return TPLSettings(**{**{name: getattr(base, name) for name in names}, **chosen})


def device_of(function: Callable[..., Any]) -> torch.device:
    """Device of a module's first parameter; the CPU for anything else."""
    first = next(function.parameters(), None) if isinstance(function, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def number_of_codes(generator: GeneratorFunction, num_codes: int | None) -> int:
    """`num_codes`, or what the generator says of itself."""
    num = getattr(generator, "num_codes", None) if num_codes is None else num_codes
    if num is None:
        raise ValueError("num_codes is needed: the generator does not say how many codes it takes")
    if num < 1:
        raise ValueError(f"num_codes must be at least 1, got {num}")
    return int(num)


def _base_codes(
    generator: GeneratorFunction, num_codes: int | None, settings: TPLSettings, base_codes: Tensor | None, seed: int
) -> Tensor:
    if base_codes is None:
        draws = torch.Generator().manual_seed(seed)
        shape = (settings.num_traversals, number_of_codes(generator, num_codes))
        return torch.randn(shape, generator=draws, dtype=torch.float64)
    if num_codes not in (None, base_codes.shape[1]):
        raise ValueError(f"num_codes is {num_codes}, but base_codes have shape {tuple(base_codes.shape)}")
    return base_codes.double().cpu()


@contextlib.contextmanager
def evaluating(function: Callable[..., Any]) -> Iterator[None]:
    """A module in eval mode meanwhile, each part back in its own mode afterwards; anything else as it is."""
    modes = [(part, part.training) for part in function.modules()] if isinstance(function, nn.Module) else []
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def fixed_noise(generator: GeneratorFunction) -> Iterator[GeneratorFunction]:
    """The generator in eval mode, and called with `noise_mode="const"` if it is a module that takes one."""
    with evaluating(generator):
        if isinstance(generator, nn.Module) and "noise_mode" in inspect.signature(generator.forward).parameters:
            yield functools.partial(generator, noise_mode="const")
        else:
            yield generator


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


@torch.inference_mode()
def neighbour_distances(
    generator: GeneratorFunction,
    measure: FeatureDistance,
    batches: Iterator[Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    bar: Any = None,
) -> Tensor:
    """Distances of neighbouring images in rows of images; each image is generated and looked at once.

    Args:
        generator: images [B, C, H, W] from codes [B, K].
        measure: the distance.
        batches: codes [B, K] of all images, row after row; batches need not respect the rows.
        shape: [..., n], rows of n images.
        device: where to compute.
        bar: a progress bar with `update(num)`, if there is one.

    Returns:
        [..., n - 1] float64 on the CPU.

    Raises:
        ValueError: images of a wrong shape; images or distances that are not finite.
    """
    parts: list[Tensor] = []
    last: Features | None = None
    for codes in batches:
        features = measure.features(prepare_images(check_images(generator(codes.float().to(device)), codes)))
        heads = tuple(f[:1] for f in features)
        parts.append(torch.zeros(1) if last is None else measure.between(last, heads).cpu())
        if len(codes) > 1:
            inner = measure.between(tuple(f[:-1] for f in features), tuple(f[1:] for f in features))
            parts.append(inner.cpu())
        last = tuple(f[-1:].clone() for f in features)
        if bar is not None:
            bar.update(len(codes))
    # Entry i is the distance of images i - 1 and i; the first of each row belongs to two rows and is dropped.
    flat = torch.cat([part.double() for part in parts])
    distances = flat.view(shape)[..., 1:].clone()
    if not distances.isfinite().all():
        broken = int((~distances.isfinite()).sum())
        raise ValueError(f"{broken} of {distances.numel()} distances are not finite, although the images are")
    return distances


def progress_bar(total: int, description: str, shown: bool) -> Any:
    """A context manager that gives a progress bar over images, or None where none is to be shown."""
    if not shown:
        return contextlib.nullcontext()
    return require("tqdm", "metrics").tqdm(total=total, unit="img", desc=description, leave=False)


class TraversalLengthHook:
    """Measures TPL every few calls in any training loop, and logs it.

    Writes `metric-tpl_NAME.jsonl` lines as StyleGAN code bases do, TensorBoard scalars, and a picture of the sweeps
    ordered by tpl_i. Under distributed training, call it on one process only.

    Args:
        run_dir: existing folder to write to; None takes the one that each call brings, and writes nothing without.
        every: measure when `step` is a multiple of this; with `after_snapshot`, every so many snapshots.
        preset: settings, see `traversal_perceptual_length`.
        distance: the distance, see `traversal_perceptual_length`; built now, so that missing weights show at once.
        weights: file of the distance's weights.
        writer: a TensorBoard `SummaryWriter`, or anything with its `add_scalar` and `add_image`.
        pictures: write `traversal-STEP.png`.
        picture_points: images a row in it.
        **options: further arguments of `traversal_perceptual_length`, such as `num_codes`, `batch_size` or `device`.

    Raises:
        ValueError: an unknown preset or distance, or a number out of range.
        TypeError: an option that `traversal_perceptual_length` does not have.
        NotADirectoryError: `run_dir` is no folder.
        FileNotFoundError: the distance's weights are neither here nor can be downloaded.
    """

    def __init__(
        self,
        run_dir: str | Path | None = None,
        *,
        every: int = 1,
        preset: str = "tpl_small_0.3",
        distance: str | FeatureDistance | DistanceFunction = "lpips",
        weights: str | Path | None = None,
        writer: Any = None,
        pictures: bool = True,
        picture_points: int = 7,
        **options: Any,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if picture_points < 2:
            raise ValueError(f"picture_points must be at least 2, got {picture_points}")
        if run_dir is not None and not Path(run_dir).is_dir():
            raise NotADirectoryError(f"run_dir is no folder: {str(run_dir)!r}")
        inspect.signature(traversal_perceptual_length).bind_partial(**options)  # a typing error shows at once
        tpl_preset(preset)
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.every = every
        self.preset = preset
        self.metric = preset if preset.startswith("tpl_") else f"tpl_{preset}"
        self.distance = as_feature_distance(distance, weights)
        self.writer = writer
        self.pictures = pictures
        self.picture_points = picture_points
        self.options = options
        self._snapshots = 0

    def __call__(
        self, generator: GeneratorFunction, step: int, run_dir: str | Path | None = None, snapshot: str | None = None
    ) -> TraversalLength | None:
        """Measure `generator` if `step` is a multiple of `every`; None otherwise.

        Args:
            generator: images [B, C, H, W] from codes [B, K].
            step: the training's counter, written to TensorBoard and into the picture's name.
            run_dir: folder to write to instead of the hook's.
            snapshot: the network file that holds the generator, noted in the line.
        """
        return None if step % self.every else self._measure(generator, step, run_dir, snapshot)

    def after_snapshot(self, state: Any, run_dir: Path) -> TraversalLength | None:
        """The hook of this package's training loop: measures the averaged generator of `state`.

        Args:
            state: with `G_ema` and `images_seen`.
            run_dir: folder of the run.
        """
        due = self._snapshots % self.every == 0
        self._snapshots += 1
        kimg = state.images_seen // 1000
        return self._measure(state.G_ema, kimg, run_dir, f"network-snapshot-{kimg:06d}.safetensors") if due else None

    def _measure(
        self, generator: GeneratorFunction, step: int, run_dir: str | Path | None, snapshot: str | None
    ) -> TraversalLength:
        start = time.perf_counter()
        result = traversal_perceptual_length(generator, preset=self.preset, distance=self.distance, **self.options)
        seconds = time.perf_counter() - start
        folder = self.run_dir if run_dir is None else Path(run_dir)
        if folder is not None:
            append_result(folder, self.metric, self._results(result), seconds, snapshot)
        if self.writer is not None:
            for name, value in self._scalars(result).items():
                self.writer.add_scalar(f"Metrics/{name}", value, global_step=step)
        if self.pictures and (folder is not None or self.writer is not None):
            self._show(generator, result, step, folder)
        return result

    def _scalars(self, result: TraversalLength) -> dict[str, float]:
        return {self.metric: result.total, f"{self.metric}_active": result.num_active}

    def _results(self, result: TraversalLength) -> dict[str, Any]:
        return {**self._scalars(result), "interval": list(result.interval), "per_dim": result.per_dim.tolist()}

    def _show(self, generator: GeneratorFunction, result: TraversalLength, step: int, folder: Path | None) -> None:
        picture = traversal_picture(generator, result, self.picture_points)
        if folder is not None:
            save_png(picture, folder / f"traversal-{step:06d}.png")
        if self.writer is not None:
            self.writer.add_image(f"Traversal/{self.metric}", picture, global_step=step)


@torch.inference_mode()
def traversal_picture(
    generator: GeneratorFunction, result: TraversalLength, points: int = 7, bound: float = 2.0
) -> Tensor:
    """A grid of images: one row a code from the longest sweep to the shortest, around the first base code.

    Args:
        generator: images [B, C, H, W] from codes [B, K].
        result: what was measured of it.
        points: images a row.
        bound: each code sweeps from minus this to this.

    Returns:
        uint8 [C, K * H, points * W].
    """
    where = device_of(generator)
    codes = traversal_codes(result.base_codes[0], points, bound, result.ranking)
    with fixed_noise(generator) as fixed:
        rows = [to_uint8(check_images(fixed(row.float().to(where)), row)).cpu() for row in codes]
    return image_grid(torch.cat(rows), points)
