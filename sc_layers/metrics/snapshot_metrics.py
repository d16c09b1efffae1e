"""Metrics of a training's networks at its snapshots."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..checkpoints.snapshots import snapshot_name
from . import registry
from .generators import evaluating
from .table import append_result


class SnapshotMetrics:
    """Measures the averaged generator, and the recogniser, after each snapshot of a training.

    Each value is a line of `metric-NAME.jsonl` in the run's folder, as StyleGAN code bases write them.

    Args:
        names: keys of `registry.METRICS`.
        settings: how to measure, with the data set where a metric looks at one.
        writer: a TensorBoard `SummaryWriter` that shows the values too, or None.

    Raises:
        ValueError, FileNotFoundError: see `registry.prepare`.
    """

    def __init__(self, names: Sequence[str], settings: registry.MeasureSettings, writer: Any = None) -> None:
        self.names = list(names)
        self.measures = registry.prepare(names, settings)
        self.writer = writer

    def after_snapshot(self, state: Any, run_dir: Path) -> None:
        """The hook of the training loop.

        Args:
            state: the training, with `G_ema`, `reader`, `config.latents` and `images_seen`.
            run_dir: folder of the run.
        """
        generator = state.G_ema
        recognizer = state.reader
        networks = registry.Networks(generator, generator, recognizer, state.config.latents)
        for name in self.names:
            start = time.perf_counter()
            with evaluating(recognizer):
                score = registry.measure(name, networks, self.measures)
            seconds = time.perf_counter() - start
            results = {name: score.score, **score.to_dict()}
            append_result(run_dir, name, results, seconds, snapshot_name(state.images_seen))
            if self.writer is not None:
                self.writer.add_scalar(f"Metrics/{name}", score.score, global_step=state.images_seen)
