"""The loop around the training step: data, snapshots, pictures, statistics."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._optional import require
from ..data import Dataset, batches
from ..data.batches import readable_images_at
from ..data.checking import BackgroundCheck
from ..files import write_file
from ..images import image_grid, save_png, shown_masks, to_network_range, to_uint8
from ..models.latents import draw_codes
from .snapshots import CONFIG_FILE, DivergedError, append_stats, save_snapshot
from .step import TrainingState, training_step

PICTURE_COLUMNS = 8
PICTURE_ROWS = 6
MOST_SKIPPED_STEPS = 20  # in a row

SnapshotHook = Callable[[TrainingState, Path], object]


class _Statistics:
    """What happened since the last line of statistics: means of the losses, and how fast it went."""

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._losses: dict[str, list[Tensor]] = {}
        self._start, self._seen = time.perf_counter(), state.images_seen

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self._losses.setdefault(name, []).append(loss)

    def pop(self) -> dict[str, float]:
        """The line, after which a new one begins."""
        now, seen = time.perf_counter(), self._state.images_seen
        line = {
            "kimg": seen / 1000,
            "images_per_second": (seen - self._seen) / (now - self._start),
            "skipped_updates": self._state.skipped_updates,
            "timestamp": time.time(),
            **{name: float(torch.stack(values).mean()) for name, values in self._losses.items()},
        }
        self._losses.clear()
        self._start, self._seen = now, seen
        return line


class _Patience:
    """Ends a training that has diverged: whose updates are skipped, step after step, for gradients not finite."""

    def __init__(self, state: TrainingState) -> None:
        self._skipped, self._steps = state.skipped_updates, 0

    def check(self, state: TrainingState) -> None:
        """To be called after every step."""
        self._steps = self._steps + 1 if state.skipped_updates > self._skipped else 0
        self._skipped = state.skipped_updates
        if self._steps == MOST_SKIPPED_STEPS:
            raise DivergedError(
                f"the training has diverged: in {self._steps} steps in a row, up to {state.images_seen} images, "
                "gradients were not finite; go on from the last snapshot with a smaller learning rate or gamma"
            )


class Pictures:
    """Pictures of the data and of fixed codes, to watch a training by. Those of the data are written at once.

    Args:
        run_dir: folder to write to.
        state: the training, whose seed chooses images and codes.
        dataset: real images.
    """

    def __init__(self, run_dir: Path, state: TrainingState, dataset: Dataset) -> None:
        self.run_dir = run_dir
        count = PICTURE_COLUMNS * PICTURE_ROWS
        draws = torch.Generator().manual_seed(state.config.seed)
        reals, _ = readable_images_at(dataset, torch.randint(len(dataset), (count,), generator=draws).numpy())
        save_png(image_grid(reals, PICTURE_COLUMNS, outline=False), run_dir / "reals.png")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(state.config.seed)
            self.codes = draw_codes(count, state.G.num_codes, state.config.latents, "cpu")

    def save(self, state: TrainingState) -> None:
        """Write `fakesKIMG.png`, and `masksKIMG.png` (a row: an image and its masks) where there are masks.

        Args:
            state: the training, whose averaged generator draws.
        """
        kimg = f"{state.images_seen // 1000:06d}"
        device = next(state.G_ema.parameters()).device
        with torch.no_grad():
            images, masks = state.G_ema(self.codes.to(device), noise_mode="const", return_masks=True)
        grid = image_grid(to_uint8(images), PICTURE_COLUMNS, outline=False)
        save_png(grid, self.run_dir / f"fakes{kimg}.png")
        if masks.shape[1]:
            shown = (shown_masks(masks[:PICTURE_ROWS]) * 2 - 1).unsqueeze(2).expand(-1, -1, images.shape[1], -1, -1)
            rows = torch.cat([images[:PICTURE_ROWS].unsqueeze(1), shown], dim=1)
            save_png(image_grid(to_uint8(rows.flatten(0, 1)), rows.shape[1]), self.run_dir / f"masks{kimg}.png")


def _is_due(state: TrainingState, kimg: float) -> bool:
    """Whether the last step crossed a multiple of `kimg` thousand images."""
    every = kimg * 1000
    return state.images_seen // every > (state.images_seen - state.config.batch) // every


def _lay_out(state: TrainingState) -> torch.memory_format:
    """Put all networks into the memory format of the settings, and return it."""
    memory_format = torch.channels_last if state.config.channels_last else torch.contiguous_format
    for network in (state.G, state.D, state.Q, state.G_ema, state.Q_ema):
        if network is not None:
            network.to(memory_format=memory_format)
    return memory_format


def _real_images(
    state: TrainingState, dataset: Dataset, memory_format: torch.memory_format, workers: int | None, skip_bad: bool
) -> Iterator[Tensor]:
    """Batches [N, C, H, W] in [-1, 1] on the training's device, without end, from where the training stands."""
    config = state.config
    device = next(state.G.parameters()).device
    stream = batches(
        dataset,
        config.batch,
        config.seed,
        config.mirror,
        start=state.images_seen // config.batch,
        workers=workers,
        pin_memory=device.type == "cuda",
        skip_bad=skip_bad,
    )
    for batch in stream:
        yield to_network_range(batch.to(device, non_blocking=True)).contiguous(memory_format=memory_format)


def train(
    state: TrainingState,
    dataset: Dataset,
    run_dir: Path,
    meta: dict[str, Any],
    hooks: Sequence[SnapshotHook] = (),
    progress: bool = True,
    workers: int | None = None,
    skip_bad: bool = False,
) -> Path:
    """Train until `config.total_kimg` thousand images were seen.

    Images that are decoded from files are all read once, in a process beside the first part of the training, so that a
    damaged one ends it soon rather than late.

    Args:
        state: the training; its networks are on the device to train on.
        dataset: real images of the networks' resolution and channels.
        run_dir: existing folder for snapshots, pictures and statistics.
        meta: kept in each snapshot beside the networks, must fit into JSON.
        hooks: called with the state and the folder after each snapshot.
        progress: show a progress bar with images/s and the time left.
        workers: processes that read images ahead; None means up to 4 where images are decoded from files.
        skip_bad: train on with the next image where one is damaged, and warn of it.

    Returns:
        Path of the last snapshot.

    Raises:
        ValueError: the training is at its end already, or an image is damaged.
        DivergedError: gradients were not finite in 20 steps in a row.
    """
    config = state.config
    total = int(config.total_kimg * 1000)
    if state.images_seen >= total:
        raise ValueError(f"nothing to do: {state.images_seen} images were seen, total_kimg is {config.total_kimg}")
    memory_format = _lay_out(state)
    write_file(run_dir / CONFIG_FILE, (json.dumps({**meta, "training": config.to_dict()}, indent=2) + "\n").encode())
    pictures = Pictures(run_dir, state, dataset)
    stream = _real_images(state, dataset, memory_format, workers, skip_bad)
    statistics, patience = _Statistics(state), _Patience(state)
    bar = require("tqdm", "train").tqdm(
        total=total, initial=state.images_seen, unit="img", unit_scale=True, smoothing=0.05, disable=not progress
    )
    with bar, BackgroundCheck(dataset) if dataset.decodes and not skip_bad else nullcontext() as check:
        while True:
            if check is not None:
                check.raise_if_damaged()
            statistics.add(training_step(state, next(stream)))
            patience.check(state)
            bar.update(config.batch)
            finished = state.images_seen >= total
            if finished or _is_due(state, config.tick_kimg):
                line = statistics.pop()
                append_stats(run_dir, line)
                bar.set_postfix({name.removeprefix("loss/"): f"{line[name]:.3f}" for name in line if "/" in name})
            if finished or _is_due(state, config.snapshot_kimg):
                path = save_snapshot(run_dir, state, meta)
                pictures.save(state)
                for hook in hooks:
                    hook(state, run_dir)
                if finished:
                    return path
