"""What the paper's networks show of their codes while they train."""

from __future__ import annotations

from pathlib import Path

import torch

from ..checkpoints.snapshots import kimg_label
from ..images import save_png
from ..metrics.generators import evaluating
from ..models.latents import draw_codes
from ..training.run_dir import append_stats
from ..training.step import TrainingState
from .sweeps import sweep_codes

READ_IMAGES = 64


@torch.no_grad()
def show_codes(state: TrainingState, run_dir: Path) -> None:
    """The hook of the training loop: a labelled sweep of each code with its mask, and how well each code is read.

    The sheet is `codesKIMG.png`, with all other codes at 0. A line of `stats.jsonl` gets the recogniser's mean squared
    error of each code in 64 images of the averaged generator, `SC/error/00` and so on; 1 is nothing read.

    Args:
        state: the training, which stays as it is.
        run_dir: folder of the run.
    """
    generator = state.G_ema
    device = next(generator.parameters()).device
    num_codes = state.G.num_codes
    sweep = sweep_codes(generator, torch.zeros(num_codes, device=device))
    save_png(sweep.sheet(), run_dir / f"codes{kimg_label(state.images_seen)}.png")
    recognizer = state.Q if state.Q_ema is None else state.Q_ema
    if recognizer is None:
        return
    with torch.random.fork_rng(devices=[]), evaluating(recognizer):
        torch.manual_seed(state.config.seed)
        codes = draw_codes(READ_IMAGES, num_codes, state.config.latents, "cpu").to(device)
        read = [recognizer(generator(part, noise_mode="const")) for part in codes.split(state.config.batch)]
    errors = (torch.cat(read) - codes).square().mean(0).tolist()
    numbers = {f"SC/error/{code:02d}": error for code, error in enumerate(errors)}
    append_stats(run_dir, {"kimg": state.images_seen / 1000, **numbers})
