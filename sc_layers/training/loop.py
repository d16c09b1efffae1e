"""The loop around the training step: data, snapshots, checkpoints, pictures, statistics, signals."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._optional import require
from ..checkpoints.snapshots import kimg_label, snapshot_name
from ..data import Dataset, batches
from ..data.batches import readable_images_at
from ..data.checking import BackgroundCheck
from ..files import append_line, write_file
from ..images import image_grid, save_png, shown_masks, to_network_range, to_uint8
from ..models.latents import draw_codes
from .processes import ToldElsewhere
from .run_dir import CONFIG_FILE, LOG_FILE, append_stats, cut_stats, locked
from .snapshots import DivergedError, save_checkpoint, save_snapshot, states_in
from .step import TrainingState, training_step

PICTURE_COLUMNS = 8
PICTURE_ROWS = 6
MOST_SKIPPED_STEPS = 20  # in a row
SKIPPED_SHARE = 0.05  # of the updates between two lines of statistics

SnapshotHook = Callable[[TrainingState, Path], object]


class Interrupted(Exception):
    """A signal asked the training to end. It has, with a checkpoint to go on from.

    Attributes:
        signal: the signal's number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(f"ended by signal {signal}")
        self.signal = signal


class _Signals:
    """Notes SIGINT and SIGTERM while a training runs in the main thread; the second one ends the process as ever."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: object) -> None:
        self.received = number
        self.__exit__()
        if self._at_once:
            raise Interrupted(number)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block in which there is nothing to save: a signal ends it where it stands."""
        if self.received is not None:
            raise Interrupted(self.received)
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False


class _Statistics:
    """What happened since the last line of statistics: means of the losses, and how fast it went."""

    def __init__(self, state: TrainingState) -> None:
        self._state = state
        self._start, self._seen, self._waited, self._paused = time.perf_counter(), state.images_seen, 0.0, 0.0
        self._updates, self._skipped = state.updates, int(state.skipped_updates)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block that is no training: snapshots, pictures, metrics. Its time counts by itself."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start

    def timed(self, stream: Iterator[Tensor]) -> Generator[Tensor, None, None]:
        """The images of `stream`; notes how long they are waited for."""
        while True:
            start = time.perf_counter()
            images = next(stream)
            self._waited += time.perf_counter() - start
            yield images

    def add(self, losses: dict[str, Tensor]) -> None:
        for name, loss in losses.items():
            self._state.losses.setdefault(name, []).append(loss)

    def pop(self) -> dict[str, float]:
        """The line, after which a new one begins.

        Raises:
            DivergedError: of the updates since the last line more than one in twenty was skipped.
        """
        state = self._state
        now, seen = time.perf_counter(), state.images_seen
        skipped_updates = int(state.skipped_updates)
        skipped, updates = skipped_updates - self._skipped, state.updates - self._updates
        if skipped >= MOST_SKIPPED_STEPS and skipped > SKIPPED_SHARE * 2 * updates:  # of G and D in each step
            raise DivergedError(
                f"the training has diverged: in the last {updates} steps, up to {seen} images, {skipped} updates were "
                f"skipped for gradients that were not finite, over {SKIPPED_SHARE:.0%}"
            )
        trained = now - self._start - self._paused
        line = {
            "kimg": seen / 1000,
            "images_per_second": (seen - self._seen) / trained,
            "data_waiting_share": self._waited / trained,
            "snapshot_seconds": self._paused,
            "skipped_updates": skipped_updates,
            "learning_rate": state.config.learning_rate,
            "timestamp": time.time(),
            **{name: float(torch.stack(values).mean()) for name, values in state.losses.items()},
        }
        if torch.cuda.is_available():
            line["gpu_memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        state.losses.clear()
        self._start, self._seen, self._waited, self._paused = now, seen, 0.0, 0.0
        self._updates, self._skipped = state.updates, skipped_updates
        return line


def _check_progress(state: TrainingState) -> None:
    """End a training that has diverged: whose updates are skipped, step after step, for gradients not finite.

    Only every so many steps, since a card has to be waited for.

    Raises:
        DivergedError: an update was skipped in each of the last so many steps.
    """
    if state.updates % MOST_SKIPPED_STEPS == 0 and state.skipped_in_a_row >= MOST_SKIPPED_STEPS:
        raise DivergedError(
            f"the training has diverged: in {int(state.skipped_in_a_row)} steps in a row, up to {state.images_seen} "
            "images, gradients were not finite"
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
        draws = torch.Generator().manual_seed(state.config.seed)
        self.codes = draw_codes(count, state.G.num_codes, state.config.latents, draws=draws)

    def save(self, state: TrainingState) -> None:
        """Write `fakesKIMG.png`, and `masksKIMG.png` (a row: an image and its masks) where there are masks.

        Args:
            state: the training, whose averaged generator draws.
        """
        kimg = kimg_label(state.images_seen)
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
    for network in (state.G, state.D, state.Q, state.P, state.G_ema, state.Q_ema):
        if network is not None:
            network.to(memory_format=memory_format)
    return memory_format


def _share(state: TrainingState) -> slice:
    """Which images of a batch go through this process."""
    size = state.config.batch_per_pass
    return slice(state.passes.start * size, state.passes.stop * size)


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
        share=_share(state),
        pin_memory=device.type == "cuda",
        skip_bad=skip_bad,
    )
    for batch in stream:
        yield to_network_range(batch.to(device, non_blocking=True)).contiguous(memory_format=memory_format)


class _Run:
    """A training in its folder: what is written when, by the first of its processes."""

    def __init__(
        self, state: TrainingState, run_dir: Path, meta: dict[str, Any], hooks: Sequence[SnapshotHook], keep: int
    ) -> None:
        self.state, self.run_dir, self.meta, self.hooks, self.keep = state, run_dir, meta, hooks, keep
        self._saved_at, self._saved = time.monotonic(), -1

    def checkpoint(self) -> None:
        """Write a checkpoint, unless one of this moment was written."""
        if self._saved != self.state.images_seen:
            if self.state.processes.is_first:
                save_checkpoint(self.run_dir, self.state, self.meta, self.keep)
            self._saved_at, self._saved = time.monotonic(), self.state.images_seen

    def _checkpoint_is_due(self) -> bool:
        """Whether the last checkpoint is as many minutes ago as the settings say."""
        return time.monotonic() - self._saved_at > 60 * self.state.config.checkpoint_minutes

    def next_images(self, stream: Iterator[Tensor], check: BackgroundCheck | None, signals: _Signals) -> Tensor:
        """The next images, unless a process has none or got a signal, of which all hear; then, a checkpoint.

        Raises:
            ValueError, OSError: an image is damaged.
            Interrupted: by a signal.
        """
        processes = self.state.processes
        is_due = processes.is_first and self._checkpoint_is_due()
        try:
            if check is not None:
                check.raise_if_damaged()
            images = next(stream)
        except (ValueError, OSError):
            processes.largest(True, signals.received or 0, is_due)
            self.checkpoint()
            raise
        failed, number, due = processes.largest(False, signals.received or 0, is_due)
        if failed or number or due:
            self.checkpoint()
        if failed:
            raise ToldElsewhere("another process of this training has no more images")
        if number:
            raise Interrupted(number)
        return images

    def snapshot(self, pictures: Pictures | None, signals: _Signals) -> Path:
        """Write the networks, a checkpoint and pictures, and call the hooks."""
        if pictures is None:
            self.checkpoint()
            return self.run_dir / snapshot_name(self.state.images_seen)
        path = save_snapshot(self.run_dir, self.state, self.meta)
        self.checkpoint()
        with signals.at_once():
            pictures.save(self.state)
            for hook in self.hooks:
                hook(self.state, self.run_dir)
        return path

    def log(self, line: dict[str, float]) -> None:
        """Add the statistics to their file and, as people read them, to the log."""
        if not self.state.processes.is_first:
            return
        append_stats(self.run_dir, line)
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        append_line(self.run_dir / LOG_FILE, f"{now}  " + "  ".join(f"{name} {line[name]:.4g}" for name in line))

    def configuration(self) -> bytes:
        """All that a training needs to be repeated: data, networks, settings."""
        state = self.state
        networks = {"generator": state.G, "discriminator": state.D, "recognizer": state.Q}
        configs: dict[str, Any] = {name: net.config.to_dict() for name, net in networks.items() if net is not None}
        content = {**self.meta, "networks": configs, "training": state.config.to_dict()}
        return (json.dumps(content, indent=2) + "\n").encode()

    def diverged(self, error: DivergedError) -> DivergedError:
        """The error, with the checkpoint to go on from."""
        states = states_in(self.run_dir)
        advice = f"go on from {states[-1]}" if states else "start again"
        return DivergedError(f"{error}; {advice} with a smaller learning rate or gamma")


def train(
    state: TrainingState,
    dataset: Dataset,
    run_dir: Path,
    meta: dict[str, Any],
    hooks: Sequence[SnapshotHook] = (),
    progress: bool = True,
    workers: int | None = None,
    skip_bad: bool = False,
    keep: int = 2,
) -> Path:
    """Train until `config.total_kimg` thousand images were seen.

    Images that are decoded from files are all read once, in a process beside the first part of the training, so that a
    damaged one ends it soon rather than late. Of several processes, which all call this function alike, the first
    writes, shows and measures while the others wait. Whatever ends the training between two steps leaves a
    checkpoint; statistics of a training that had been further are cut back to where it goes on.

    Args:
        state: the training; its networks are on the device to train on.
        dataset: real images of the networks' resolution and channels.
        run_dir: existing folder for snapshots, checkpoints, pictures and statistics.
        meta: kept in each snapshot beside the networks, must fit into JSON.
        hooks: called with the state and the folder after each snapshot.
        progress: show a progress bar with images/s and the time left.
        workers: processes that read images ahead; None means up to 4 where images are decoded from files.
        skip_bad: train on with the next image where one is damaged, and warn of it.
        keep: how many of the newest checkpoints stay.

    Returns:
        Path of the last snapshot.

    Raises:
        ValueError: the training is at its end already, or an image is damaged.
        DivergedError: gradients were not finite in 20 steps in a row or more, or in 5 % of the updates of a line of
            statistics.
        Interrupted: by SIGINT or SIGTERM.
        RuntimeError: another process trains in the folder.
        ProcessLost: one of the processes that share the training has ended by itself.
        WriteError: the disk is full, or the folder can't be written.
    """
    config, processes = state.config, state.processes
    total = int(config.total_kimg * 1000)
    if state.images_seen >= total:
        raise ValueError(f"nothing to do: {state.images_seen} images were seen, total_kimg is {config.total_kimg}")
    memory_format = _lay_out(state)
    run = _Run(state, run_dir, meta, hooks, keep)
    pictures, check = None, None
    with contextlib.ExitStack() as stack:
        if processes.is_first:
            stack.enter_context(locked(run_dir))
            write_file(run_dir / CONFIG_FILE, run.configuration())
            cut_stats(run_dir, state.images_seen)
            pictures = Pictures(run_dir, state, dataset)
        signals = stack.enter_context(_Signals())
        bar = stack.enter_context(_progress_bar(state, total, progress and processes.is_first))
        if processes.is_first and dataset.decodes and not skip_bad:
            check = stack.enter_context(BackgroundCheck(dataset))
        statistics = _Statistics(state)
        images_ahead = statistics.timed(_real_images(state, dataset, memory_format, workers, skip_bad))
        # Closed here, or an error would keep the processes that read ahead as long as it is kept.
        stream = stack.enter_context(contextlib.closing(images_ahead))
        while True:
            try:
                images = run.next_images(stream, check, signals)
                statistics.add(training_step(state, images))
                _check_progress(state)
                bar.update(config.batch)
                finished = state.images_seen >= total
                if finished or _is_due(state, config.tick_kimg):
                    line = statistics.pop()
                    run.log(line)
                    bar.set_postfix({name.removeprefix("loss/"): f"{line[name]:.3f}" for name in line if "/" in name})
                if finished or _is_due(state, config.snapshot_kimg):
                    with statistics.paused():
                        path = run.snapshot(pictures, signals)
                    if finished:
                        return path
            except DivergedError as error:
                raise run.diverged(error) from error


def _progress_bar(state: TrainingState, total: int, shown: bool) -> Any:
    tqdm = require("tqdm", "train").tqdm
    return tqdm(total=total, initial=state.images_seen, unit="img", unit_scale=True, smoothing=0.05, disable=not shown)
