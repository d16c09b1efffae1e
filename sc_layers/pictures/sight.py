"""What the paper's networks show of their codes while they train."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.snapshots import kimg_label
from ..files import append_line
from ..images import save_png
from ..metrics.generators import evaluating
from ..models.latents import draw_codes
from ..training.step import TrainingState
from .sweeps import sweep_codes

READ_IMAGES = 64


class CodeWatch:
    """Shows after each snapshot of a training what every code does, and how well it is read.

    Args:
        writer: a TensorBoard `SummaryWriter` that shows the numbers too, or None.
    """

    def __init__(self, writer: Any = None) -> None:
        self.writer = writer

    @torch.no_grad()
    def after_snapshot(self, state: TrainingState, run_dir: Path) -> None:
        """The hook of the training loop: a labelled sweep of each code with its mask, and how well each is read.

        The sheet is `codesKIMG.png`, with all other codes at 0. A line of `codes.jsonl` gets the recogniser's mean
        squared error of each code in 64 images of the averaged generator, `SC/error/00` and so on; 1 is nothing read.

        Args:
            state: the training, which stays as it is.
            run_dir: folder of the run.
        """
        base = torch.zeros(state.G.num_codes, device=next(state.G_ema.parameters()).device)
        save_png(sweep_codes(state.G_ema, base).sheet(), run_dir / f"codes{kimg_label(state.images_seen)}.png")
        errors = reading_errors(state)
        if not errors:
            return
        append_line(run_dir / "codes.jsonl", json.dumps({"kimg": state.images_seen / 1000, **errors}))
        if self.writer is not None:
            for name, error in errors.items():
                self.writer.add_scalar(name, error, global_step=state.images_seen)


@torch.no_grad()
def reading_errors(state: TrainingState) -> dict[str, float]:
    """The recogniser's mean squared error of each code, as `SC/error/00` and so on; empty without a recogniser.

    Args:
        state: the training. Its seed draws the codes, its averaged networks make and read the images.
    """
    recognizer = state.reader
    if recognizer is None:
        return {}
    device = next(state.G_ema.parameters()).device
    draws = torch.Generator().manual_seed(state.config.seed)
    codes = draw_codes(READ_IMAGES, state.G.num_codes, state.config.latents, draws=draws).to(device)
    with evaluating(recognizer):
        read = [recognizer(state.G_ema(part, noise_mode="const")) for part in codes.split(state.config.batch)]
    errors = (torch.cat(read) - codes).square().mean(0).tolist()
    return {f"SC/error/{code:02d}": error for code, error in enumerate(errors)}
