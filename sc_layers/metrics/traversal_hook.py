"""TPL in anyone's training loop: measured every few steps, logged and shown."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.snapshots import kimg_label, snapshot_name
from ..images import check_images, image_grid, save_png, to_uint8
from ..models.latents import traversal_codes
from .distances import DistanceFunction, FeatureDistance, as_feature_distance
from .generators import SAMPLING, GeneratorFunction, Sampling, device_of, fixed_noise
from .table import append_result
from .traversal_length import TPLSettings, TraversalLength, tpl_preset, traversal_perceptual_length


class TraversalLengthHook:
    """Measures TPL every few calls in any training loop, and logs it.

    Writes `metric-tpl_NAME.jsonl` lines as StyleGAN code bases do, TensorBoard scalars, and a picture of the sweeps
    ordered by tpl_i. Under distributed training, call it on one process only.

    Args:
        run_dir: existing folder to write to; None takes the one that each call brings, and writes nothing without.
        every: measure when `step` is a multiple of this; with `after_snapshot`, every so many snapshots.
        settings: a preset's name, or settings, whose metric is then called "tpl".
        distance: see `traversal_perceptual_length`; built now, so that missing weights show at once.
        writer: a TensorBoard `SummaryWriter`, or anything with its `add_scalar` and `add_image`.
        pictures: write `traversal-STEP.png`.
        picture_points: images a row in it.
        num_codes: K; None takes the generator's `num_codes`.
        sampling: see `traversal_perceptual_length`.

    Raises:
        ValueError: an unknown preset or distance, or a number out of range.
        NotADirectoryError: `run_dir` is no folder.
        FileNotFoundError: the distance's weights are neither here nor can be downloaded.
    """

    def __init__(
        self,
        run_dir: str | Path | None = None,
        *,
        every: int = 1,
        settings: TPLSettings | str = "tpl_small_0.3",
        distance: str | FeatureDistance | DistanceFunction = "lpips",
        writer: Any = None,
        pictures: bool = True,
        picture_points: int = 7,
        num_codes: int | None = None,
        sampling: Sampling = SAMPLING,
    ) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}")
        if picture_points < 2:
            raise ValueError(f"picture_points must be at least 2, got {picture_points}")
        if run_dir is not None and not Path(run_dir).is_dir():
            raise NotADirectoryError(f"run_dir is no folder: {str(run_dir)!r}")
        self.run_dir = None if run_dir is None else Path(run_dir)
        self.every = every
        self.metric = settings if isinstance(settings, str) else "tpl"
        self.settings = tpl_preset(settings) if isinstance(settings, str) else settings
        self.distance = as_feature_distance(distance)
        self.writer = writer
        self.pictures = pictures
        self.picture_points = picture_points
        self.num_codes = num_codes
        self.sampling = sampling
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
        return None if step % self.every else self._measure(generator, step, run_dir, snapshot, f"{step:06d}")

    def after_snapshot(self, state: Any, run_dir: Path) -> TraversalLength | None:
        """The hook of this package's training loop: measures the averaged generator of `state`.

        Args:
            state: with `G_ema` and `images_seen`.
            run_dir: folder of the run.
        """
        due = self._snapshots % self.every == 0
        self._snapshots += 1
        if not due:
            return None
        seen = state.images_seen
        return self._measure(state.G_ema, seen, run_dir, snapshot_name(seen), kimg_label(seen))

    def _measure(
        self, generator: GeneratorFunction, step: int, run_dir: str | Path | None, snapshot: str | None, label: str
    ) -> TraversalLength:
        start = time.perf_counter()
        result = traversal_perceptual_length(
            generator, self.num_codes, self.settings, distance=self.distance, sampling=self.sampling
        )
        seconds = time.perf_counter() - start
        folder = self.run_dir if run_dir is None else Path(run_dir)
        if folder is not None:
            append_result(folder, self.metric, self._results(result), seconds, snapshot)
        if self.writer is not None:
            for name, value in self._scalars(result).items():
                self.writer.add_scalar(f"Metrics/{name}", value, global_step=step)
        if self.pictures and (folder is not None or self.writer is not None):
            self._show(generator, result, step, folder, label)
        return result

    def _scalars(self, result: TraversalLength) -> dict[str, float]:
        return {self.metric: result.total, f"{self.metric}_active": result.num_active}

    def _results(self, result: TraversalLength) -> dict[str, Any]:
        return {**self._scalars(result), "interval": list(result.interval), "per_dim": result.per_dim.tolist()}

    def _show(
        self, generator: GeneratorFunction, result: TraversalLength, step: int, folder: Path | None, label: str
    ) -> None:
        picture = traversal_picture(generator, result, self.picture_points)
        if folder is not None:
            save_png(picture, folder / f"traversal-{label}.png")
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
