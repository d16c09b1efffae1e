"""What a training shows in TensorBoard."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from .._optional import require
from ..checkpoints.snapshots import kimg_label
from ..files import read_json_lines
from .run_dir import STATS_FILE
from .step import TrainingState

_PICTURES = ("fakes", "masks")


class Board:
    """Losses, learning rate, speed, skipped updates and pictures of a run, for TensorBoard and Weights & Biases.

    Args:
        run_dir: folder of the run, where TensorBoard looks.
        wandb_project: a project of Weights & Biases that shows the same, or None.

    Attributes:
        writer: TensorBoard's `SummaryWriter`.

    Raises:
        ImportError: TensorBoard or wandb is missing.
    """

    def __init__(self, run_dir: Path, wandb_project: str | None = None) -> None:
        require("tensorboard", "train")
        if wandb_project is not None:
            wandb = require("wandb", "wandb")
            wandb.tensorboard.patch(root_logdir=str(run_dir))
            wandb.init(project=wandb_project, name=run_dir.name, dir=run_dir)
        self.writer: Any = importlib.import_module("torch.utils.tensorboard").SummaryWriter(run_dir)
        self._shown = -1

    def after_snapshot(self, state: TrainingState, run_dir: Path) -> None:
        """The hook of the training loop: show the lines of statistics since the last call, and the pictures.

        Args:
            state: the training.
            run_dir: folder of the run.
        """
        for line in read_json_lines(run_dir / STATS_FILE):
            step = round(line["kimg"] * 1000)
            if self._shown < step <= state.images_seen:
                for name, value in line.items():
                    if name not in ("kimg", "timestamp") and value is not None:
                        self.writer.add_scalar(name if "/" in name else f"Progress/{name}", value, step)
        self._shown = state.images_seen
        for name in _PICTURES:
            path = run_dir / f"{name}{kimg_label(state.images_seen)}.png"
            if path.is_file():
                image = require("PIL.Image", "train").open(path).convert("RGB")
                self.writer.add_image(name, np.asarray(image), state.images_seen, dataformats="HWC")
        self.writer.flush()
