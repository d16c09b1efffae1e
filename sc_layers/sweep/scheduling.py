"""The runs of a sweep on Ray: as many at a time as processors and GPUs allow; and how long they will take."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from .._optional import require
from ..files import read_json_lines
from ..training import Interrupted
from ..training.run_dir import STATS_FILE
from .grid import Run, arguments
from .results import FAILED, Result, save_order
from .running import Place, execute, is_done, measure, run_dirs

_GRACE = 60  # seconds for trainings to leave checkpoints when the sweep is ended
_PROBE_STEPS = 16  # R1 runs once in so many


@dataclass(frozen=True)
class Resources:
    """What a sweep may use.

    Attributes:
        address: of a Ray cluster, whose machines all see the sweep's folder; None starts Ray on this machine.
        cpus: threads of this machine that all runs share; a cluster has its own number.
        threads: threads a run.
        gpu_share: share of a GPU a run: 0.25 puts four on one GPU, 0 computes on processors.
    """

    address: str | None
    cpus: int
    threads: int = 1
    gpu_share: float = 0.0

    def __post_init__(self) -> None:
        if self.threads > self.cpus:
            raise ValueError(f"a run takes {self.threads} threads, and there are {self.cpus} for all runs")
        if not 0 <= self.gpu_share <= 1:
            raise ValueError(f"gpu_share must be from 0 to 1, got {self.gpu_share}")

    @property
    def place(self) -> Place:
        """Where each run computes."""
        return Place(os.getcwd(), "cuda" if self.gpu_share else "cpu", self.threads)

    def at_once(self, gpus: int) -> int:
        """How many runs go at a time on a machine with so many `gpus`."""
        by_gpu = [math.floor(gpus / self.gpu_share + 1e-9)] if self.gpu_share else []
        return max(1, min([self.cpus // self.threads, *by_gpu]))


def ray_module() -> ModuleType:
    """Ray.

    Raises:
        ImportError: it is missing; the message says how to get it, and for which Pythons there is one.
    """
    try:
        return require("ray", "sweep")
    except ImportError as error:
        raise ImportError(f"{error} (Ray has packages for Python 3.10 to 3.14 on Linux, macOS and Windows)") from error


def pending_runs(runs: Sequence[Run], outdir: Path) -> list[Run]:
    """The `runs` that are not finished in the folder `outdir`; those that failed are tried again.

    Raises:
        ValueError: the folder holds runs of other settings.
    """
    return [run for run in runs if not is_done(outdir / run.name, run)]


def sweep(runs: Sequence[Run], outdir: Path, resources: Resources, log: Callable[[str], None]) -> list[Result]:
    """Train and measure all runs that are not finished.

    Args:
        runs: all runs of the grid.
        outdir: the sweep's folder, where each run has its own.
        resources: what may be used.
        log: called with a line of text about each run that has ended, and the time left.

    Returns:
        Results of the runs of this call, in the order of their end.

    Raises:
        ValueError: the folder holds runs of other settings.
        ImportError: Ray is missing.
        ConnectionError: there is no cluster at the address.
        Interrupted: by SIGINT or SIGTERM, and the trainings have been ended.
    """
    pending = pending_runs(runs, outdir)
    save_order(outdir, [run.name for run in runs])
    log(f"{len(runs)} runs, {len(runs) - len(pending)} of them finished already")
    if not pending:
        return []
    ray = ray_module()
    local = {} if resources.address else {"num_cpus": resources.cpus, "include_dashboard": False}
    with interruptible():
        ray.init(address=resources.address or "local", log_to_driver=False, configure_logging=False, **local)
        try:
            _check_room(ray, resources)
            with interruptible():  # as Ray puts a handler of its own in the place of ours
                return _collect(ray, _submit(ray, pending, outdir, resources), log)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A block that SIGTERM ends as Ctrl-C does; Ray's own handler leaves no time for anything.

    Raises:
        Interrupted: by one of the two.
    """
    received = signal.SIGINT

    def note(number: int, frame: object) -> None:
        nonlocal received
        received = signal.Signals(number)
        raise KeyboardInterrupt  # the only one of these exceptions that Ray lets through as it is

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, note) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(received) from None
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _check_room(ray: ModuleType, resources: Resources) -> None:
    """Refuse what no machine has, which Ray would wait for without end."""
    there: dict[str, float] = ray.cluster_resources()
    for kind, wanted in (("CPU", resources.threads), ("GPU", resources.gpu_share)):
        if wanted > there.get(kind, 0):
            raise ValueError(f"a run takes {wanted:g} {kind}, and Ray has {there.get(kind, 0):g}")


def _execute(run: Run, folder: Path, place: Place) -> Result:
    """`execute`, in a worker of Ray's."""
    # What starts a sweep in the background may have it ignore SIGINT, by which Ray tells a worker that a run is ended.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return execute(run, folder, place)


def _submit(ray: ModuleType, pending: Sequence[Run], outdir: Path, resources: Resources) -> dict[Any, Run]:
    # A run that fails is a result, and one whose machine is lost is not begun anew: the next call goes on with it.
    options = {"num_cpus": resources.threads, "num_gpus": resources.gpu_share, "max_retries": 0}
    task = ray.remote(**options)(_execute)
    return {task.remote(run, (outdir / run.name).resolve(), resources.place): run for run in pending}


def _collect(ray: ModuleType, tasks: dict[Any, Run], log: Callable[[str], None]) -> list[Result]:
    """The results as they come; an interruption ends the runs, which leave checkpoints."""
    waiting, results, start = list(tasks), [], time.monotonic()
    try:
        while waiting:
            (done,), waiting = ray.wait(waiting, num_returns=1)
            results.append(_result(ray, done, tasks[done]))
            log(_line(results[-1], tasks[done], len(results), len(tasks), time.monotonic() - start))
    except BaseException:
        for task in waiting:
            ray.cancel(task)
        ray.wait(waiting, num_returns=len(waiting), timeout=_GRACE)
        raise
    return results


def _result(ray: ModuleType, task: Any, run: Run) -> Result:
    try:
        found: Result = ray.get(task)
        return found
    except ray.exceptions.RayError as error:  # the worker or its machine is lost
        reason = " ".join(str(error).split())[:200]
        return Result(run.setting, run.seed, run.train, run.measure, FAILED, error=reason)


def _line(result: Result, run: Run, count: int, total: int, seconds: float) -> str:
    shown = ", ".join(f"{name} {value:.4g}" for name, value in result.scores.items())
    what = f"failed: {result.error}" if result.status == FAILED else shown
    left = duration(seconds / count * (total - count))
    return f"[{count}/{total}] {run.name}: {what} ({duration(result.seconds)}; about {left} left)"


def duration(seconds: float) -> str:
    """Time as people say it.

    Args:
        seconds: how many.

    >>> duration(42), duration(600), duration(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def training_seconds(run: Run, place: Place, folder: Path) -> float:
    """How long the training of a run takes, from a few steps of it.

    Args:
        run: the run.
        place: where to compute.
        folder: for what those steps leave.

    Raises:
        CommandError: the training can't be started, for the reason that the message gives.
    """
    words = ["train", *arguments(run.train), "--seed", str(run.seed)]
    shown = place.call([*words, "--dry-run"])
    settings = json.loads(shown[shown.index("\n{") :])
    short = min(settings["total_kimg"], _PROBE_STEPS * settings["batch"] / 1000)
    place.call([*words, "--outdir", str(folder), "--kimg", str(short)])
    stats = read_json_lines(run_dirs(folder)[-1] / STATS_FILE)
    seconds = sum((line["kimg"] - before) * 1000 / line["images_per_second"] for before, line in _spans(stats))
    return float(seconds * settings["total_kimg"] / stats[-1]["kimg"])


def _spans(stats: list[dict[str, Any]]) -> list[tuple[float, dict[str, Any]]]:
    """Each line of statistics, and where it began."""
    return list(zip([0.0, *(line["kimg"] for line in stats)], stats, strict=False))


@dataclass(frozen=True)
class Estimate:
    """How long a sweep takes.

    Attributes:
        training: seconds of a training, by the name of its first run, one for each setting.
        measuring: seconds in which a run is measured.
        total: seconds of all runs together, at so many at once as fit.
    """

    training: dict[str, float]
    measuring: float
    total: float


def estimate(pending: Sequence[Run], resources: Resources, gpus: int) -> Estimate:
    """How long the runs take on this machine: each setting trains for a few steps, and one network is measured.

    Args:
        pending: the runs, at least one.
        resources: what they may use.
        gpus: how many there are.

    Raises:
        CommandError: a run can't be trained or measured.
    """
    firsts: dict[str, Run] = {}
    for run in pending:
        firsts.setdefault(json.dumps(run.setting), run)
    seconds, measuring = {}, 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for number, (setting, run) in enumerate(firsts.items()):
            folder = Path(temporary) / str(number)
            seconds[setting] = training_seconds(run, resources.place, folder)
            if not number:
                start = time.monotonic()
                measure(run_dirs(folder)[-1], arguments(run.measure), resources.place)
                measuring = time.monotonic() - start
    every = sum(seconds[json.dumps(run.setting)] + measuring for run in pending)
    at_once = min(resources.at_once(gpus), len(pending))
    return Estimate({run.name: seconds[setting] for setting, run in firsts.items()}, measuring, every / at_once)
