"""One run of a sweep: trained, or trained on, and measured, each in a process of its own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.snapshots import kimg_of, snapshots_in
from ..files import read_file, write_file
from ..metrics.traversal_length import TPL_PRESETS
from ..training.run_dir import CONFIG_FILE
from ..training.snapshots import states_in
from .grid import Run, arguments
from .results import FAILED, FINISHED, Result, load_result

_LOG_FILE = "log.txt"
_NO_DIFFERENCE = ("kimg", "snap", "checkpoint-minutes", "keep", "workers")  # to the run that it is
_POLL = 1.0  # seconds between two looks at whether the sweep is ended


class CommandError(RuntimeError):
    """A command of ours has failed.

    Args:
        message: the command's own.
        log: all that it printed, which the attribute `log` keeps.
    """

    def __init__(self, message: str, log: str) -> None:
        super().__init__(message)
        self.log = log


@dataclass(frozen=True)
class Place:
    """Where the runs of a sweep compute.

    Attributes:
        cwd: the folder that paths in options start from.
        device: name of the device, as `--device` takes it.
        threads: threads of the processor for each run.
    """

    cwd: str
    device: str = "cpu"
    threads: int = 1

    def call(self, words: Sequence[str]) -> str:
        """What a command prints; if this process is ended, so is the command, which may save what it has.

        Args:
            words: the command line behind `sc-layers`.

        Raises:
            CommandError: it failed; the message is its own.
        """
        environment = os.environ | {"OMP_NUM_THREADS": str(self.threads)}
        command = [sys.executable, "-m", "sc_layers", *words, "--device", self.device]
        with subprocess.Popen(
            command, cwd=self.cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            try:
                output, errors = _outputs(process)
            except BaseException:
                process.terminate()
                process.communicate()  # a training writes its checkpoint, and must be able to tell so
                raise
        if process.returncode:
            lines = errors.strip().splitlines() or [f"ended with status {process.returncode}"]
            told = [line for line in lines if line.startswith("Error: ")] or lines
            raise CommandError(told[-1].removeprefix("Error: "), output + errors)
        return output


def _outputs(process: subprocess.Popen[str]) -> tuple[str, str]:
    while True:
        try:
            return process.communicate(timeout=_POLL)
        except subprocess.TimeoutExpired:
            continue


def run_dirs(folder: Path) -> list[Path]:
    """The training's folders in the `folder` of a run, oldest first: a start without a checkpoint leaves one behind."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))


def is_done(folder: Path, run: Run) -> bool:
    """Whether nothing of the run is left to do.

    Args:
        folder: the run's folder.
        run: what is asked for.

    Raises:
        ValueError: the folder holds a training of other settings.
    """
    before = load_result(folder)
    if before is None:
        return False
    names = sorted({*before.train, *run.train} - set(_NO_DIFFERENCE))
    changed = [name for name in names if before.train.get(name) != run.train.get(name)]
    if changed:
        name = changed[0]
        raise ValueError(
            f"{folder} holds a run with {name} {before.train.get(name)}, the grid has {run.train.get(name)}: "
            "take another --outdir"
        )
    same = (before.train, before.measure) == (dict(run.train), dict(run.measure))
    return before.status == FINISHED and same


def _trained(run_dir: Path, kimg: float | None) -> bool:
    """Whether a training has seen all its images: those of its settings, or `kimg` thousand where that is given."""
    snapshots = snapshots_in(run_dir)
    total = json.loads(bytes(read_file(run_dir / CONFIG_FILE)))["training"]["total_kimg"] if kimg is None else kimg
    return bool(snapshots) and kimg_of(snapshots[-1]) >= total


def _train(run: Run, folder: Path, place: Place) -> Path:
    """Train to the end, from the last checkpoint if there is one; the training's folder."""
    kimg = run.train.get("kimg")
    begun = [path for path in run_dirs(folder) if states_in(path)]
    if not begun:
        place.call(["train", *arguments(run.train), "--seed", str(run.seed), "--outdir", str(folder)])
    elif not _trained(begun[-1], kimg):
        length = arguments({name: run.train[name] for name in _NO_DIFFERENCE if name in run.train})
        place.call(["train", "--resume", str(begun[-1]), *length])
    return run_dirs(folder)[-1]


def measure(network: Path, options: Sequence[str], place: Place) -> tuple[dict[str, float], int | None]:
    """Values by metric, and the number of active codes where TPL is among them.

    Args:
        network: network file or folder of a training.
        options: words of the command line of `sc-layers metrics`.
        place: where to compute.

    Raises:
        CommandError: see `Place.call`.
    """
    lines: list[dict[str, Any]] = [
        json.loads(line) for line in place.call(["metrics", str(network), *options, "--json"]).splitlines() if line
    ]
    scores = {line["metric"]: line["results"][line["metric"]] for line in lines}
    active = [line["results"]["num_active"] for line in lines if line["metric"] in TPL_PRESETS]
    return scores, active[0] if active else None


def execute(run: Run, folder: Path, place: Place) -> Result:
    """Train and measure one run; whatever goes wrong with it is its result.

    Args:
        run: the run.
        folder: its own folder, which is made if need be.
        place: where to compute.

    Returns:
        What the folder's result file says, too.
    """
    start = time.monotonic()
    folder.mkdir(parents=True, exist_ok=True)
    result = Result(run.setting, run.seed, run.train, run.measure)
    result.save(folder)
    try:
        run_dir = _train(run, folder, place)
        scores, active = measure(run_dir, arguments(run.measure), place)
        network = str(snapshots_in(run_dir)[-1].relative_to(folder))
        ended: dict[str, Any] = {"status": FINISHED, "scores": scores, "num_active": active, "network": network}
    except Exception as error:
        write_file(folder / _LOG_FILE, getattr(error, "log", repr(error)).encode())
        ended = {"status": FAILED, "error": " ".join(str(error).split()) or type(error).__name__}
    result = dataclasses.replace(result, seconds=time.monotonic() - start, **ended)
    result.save(folder)
    return result
