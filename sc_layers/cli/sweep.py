"""`sc-layers sweep`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._common import Finite
from .metrics import measure
from .train import train, what_trains

if TYPE_CHECKING:
    from ..sweep import Run
    from ..sweep.scheduling import Resources


@click.command()
@click.argument("grid", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("sweep"),
    help="Each run gets a folder of its own in this one; runs that are finished there are not run again.",
)
@click.option("--address", help="Runs go to the Ray cluster at this address, whose machines must all see the folder.")
@click.option("--cpus", type=click.IntRange(1), help="All runs share so many threads.  [default: those of the machine]")
@click.option("--threads", type=click.IntRange(1), default=1, help="A run computes with so many threads.")
@click.option(
    "--gpu-share",
    type=Finite(0, 1),
    help="A run takes this share of a GPU: 0.25 puts four on each, 0 none.  [default: 1 where there is a GPU, else 0]",
)
@click.option(
    "--estimate/--no-estimate",
    "estimated",
    default=True,
    help="Say first how long all takes here, by a few steps of each setting.  [default: on, but for a cluster]",
)
@click.option("--dry-run", is_flag=True, help="Say how many runs there are and how long they take, and stop.")
def sweep(
    grid: Path,
    outdir: Path,
    address: str | None,
    cpus: int | None,
    threads: int,
    gpu_share: float | None,
    estimated: bool,
    dry_run: bool,
) -> None:
    """Train every run of a grid of settings and seeds, and measure each at its end.

    GRID is a YAML file: options of `sc-layers train` under `train`, further ones by method under `methods`, lists of
    values under `vary`, `seeds`, `metrics`, and options of `sc-layers metrics` under `measure`. A run that fails is
    noted and does not end the others. When the sweep is interrupted or killed, the same command goes on: finished runs
    stay, half-finished ones go on from their checkpoints, failed ones are tried again. `sc-layers table` shows the
    results.
    """
    from ..sweep import read_grid
    from ..sweep.results import FAILED
    from ..sweep.running import CommandError
    from ..sweep.scheduling import Resources, interruptible, pending_runs
    from ..sweep.scheduling import sweep as run_all
    from ..training import Interrupted

    runs = read_grid(grid).runs()
    _check(runs)
    if address is not None and gpu_share is None:
        raise click.UsageError("--address needs --gpu-share: 1 for a GPU of the cluster to each run, 0 for none")
    gpus = _gpus()
    share = float(gpus > 0) if gpu_share is None else gpu_share
    resources = Resources(address, cpus or os.cpu_count() or 1, threads, share)
    if dry_run:
        if address is not None:
            raise click.UsageError("--dry-run measures this machine, and excludes --address")
        pending = pending_runs(runs, outdir)
        done = f"{len(runs) - len(pending)} of them finished already"
        click.echo(f"{len(runs)} runs, {done}, {resources.at_once(gpus)} at a time")
        try:
            for line in _times(pending, resources, gpus) if estimated else []:
                click.echo(line)
        except CommandError as error:
            raise click.ClickException(f"how long all takes is not known: {error}") from error
        return
    try:
        if estimated and address is None:
            with interruptible():
                _say_time(runs, outdir, resources, gpus)
        results = run_all(runs, outdir, resources, lambda line: click.echo(line, err=True))
    except Interrupted as interrupted:
        click.echo(f"{interrupted}; to go on: the same command", err=True)
        raise SystemExit(128 + interrupted.signal) from None
    failed = sum(result.status == FAILED for result in results)
    click.echo(f"{len(results) - failed} runs finished, {failed} failed; results: sc-layers table {outdir}")
    if failed:
        raise SystemExit(1)


def _gpus() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count()


def _check(runs: list[Run]) -> None:
    """Refuse what the commands would refuse, and two runs that train the same, before the work."""
    from ..metrics.registry import check_names
    from ..sweep.grid import arguments

    names: dict[object, str] = {}
    for run in runs:
        try:
            trained = what_trains(train.make_context("train", [*arguments(run.train), "--seed", str(run.seed)]).params)
            measure.make_context("measure", ["network", *arguments(run.measure)])
        except (click.UsageError, ValueError) as error:
            message = error.format_message() if isinstance(error, click.UsageError) else str(error)
            raise click.UsageError(f"{run.name}: {message}") from error
        first = names.setdefault(trained, run.name)
        if first != run.name:
            raise click.UsageError(f"{first} and {run.name} train the same: {' '.join(arguments(run.train))}")
        check_names(run.measure["metrics"].split(","))


def _say_time(runs: list[Run], outdir: Path, resources: Resources, gpus: int) -> None:
    from ..sweep.running import CommandError
    from ..sweep.scheduling import pending_runs

    try:
        for line in _times(pending_runs(runs, outdir), resources, gpus):
            click.echo(line, err=True)
    except CommandError as error:  # a run that fails is noted in its turn
        click.echo(f"how long all takes is not known: {error}", err=True)


def _times(pending: list[Run], resources: Resources, gpus: int) -> list[str]:
    """How long the runs take, as lines of text."""
    from ..sweep.scheduling import duration, estimate

    if not pending:
        return []
    found = estimate(pending, resources, gpus)
    return [
        *(f"  {name}: about {duration(seconds)} of training" for name, seconds in found.training.items()),
        f"  measuring a run: about {duration(found.measuring)}",
        f"all: about {duration(found.total)}",
    ]
