"""What a sweep has found out, run by run: a file in each run's folder, and one with the order of all."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files import read_file, write_file

RESULT_FILE = "result.json"
ORDER_FILE = "runs.json"
FINISHED, FAILED, RUNNING = "finished", "failed", "running"


@dataclass(frozen=True)
class Result:
    """A run of a sweep, and how it ended.

    Attributes:
        setting: the method and the value of each setting that varies.
        seed: the training's seed.
        train: options of `sc-layers train`, by name.
        measure: options of `sc-layers metrics`, by name.
        status: "running" (or cut short), "finished" or "failed".
        scores: value by metric.
        num_active: active codes, where TPL was measured.
        network: the network file that was measured, beside this file.
        error: why the run failed.
        seconds: time that this call of the sweep spent on it.
    """

    setting: Mapping[str, Any]
    seed: int
    train: Mapping[str, Any]
    measure: Mapping[str, Any]
    status: str = RUNNING
    scores: Mapping[str, float] = field(default_factory=dict)
    num_active: int | None = None
    network: str | None = None
    error: str | None = None
    seconds: float = 0.0

    def save(self, folder: Path) -> None:
        """Write the file in the run's `folder`."""
        write_file(folder / RESULT_FILE, (json.dumps(dataclasses.asdict(self), indent=2) + "\n").encode())


def load_result(folder: Path) -> Result | None:
    """The result in a run's `folder`, or None where there is none.

    Raises:
        ValueError: the file is damaged.
    """
    path = folder / RESULT_FILE
    if not path.exists():
        return None
    try:
        return Result(**json.loads(bytes(read_file(path))))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no result of a sweep: {error!s:.200}") from error


def save_order(outdir: Path, names: Sequence[str]) -> None:
    """Note in which order the runs of a sweep are shown.

    Args:
        outdir: the sweep's folder.
        names: of the runs' folders, in the order of the grid.
    """
    outdir.mkdir(parents=True, exist_ok=True)
    write_file(outdir / ORDER_FILE, (json.dumps(list(names), indent=2) + "\n").encode())


def _order(outdir: Path) -> list[str]:
    path = outdir / ORDER_FILE
    if not path.exists():
        return []
    try:
        names = json.loads(bytes(read_file(path)))
    except ValueError as error:
        raise ValueError(f"{path} is no list of runs: {error!s:.200}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} is no list of runs")
    return names


def load_results(outdir: Path) -> list[Result]:
    """The results of all runs of a sweep, in the order of its grid; runs of earlier grids come last, by name.

    Args:
        outdir: the sweep's folder.

    Raises:
        FileNotFoundError: there is no result.
        ValueError: one is damaged.
    """
    outdir = Path(outdir)
    order = {name: number for number, name in enumerate(_order(outdir))}
    folders = sorted(path.parent for path in outdir.glob(f"*/{RESULT_FILE}"))
    folders.sort(key=lambda folder: order.get(folder.name, len(order)))
    found = [result for folder in folders if (result := load_result(folder)) is not None]
    if not found:
        raise FileNotFoundError(f"no results of a sweep in {str(outdir)!r}: no */{RESULT_FILE}")
    return found
