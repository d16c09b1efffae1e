"""The folder of a run: its name, its statistics, and that one process at a time writes to it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..checkpoints.snapshots import kimg_of
from ..files import append_line, write_file

STATS_FILE = "stats.jsonl"
_FILES_OF_LINES = (STATS_FILE, "codes.jsonl", "metric-*.jsonl")
CONFIG_FILE = "training_options.json"
LOG_FILE = "log.txt"
_LOCK_FILE = ".lock"
_LONGEST_NAME = 200


def create_run_dir(outdir: str | Path, description: str) -> Path:
    """Make the folder `outdir/NNNNN-description`, NNNNN one above the highest there."""
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    while True:
        taken = _numbers(outdir)
        number = outdir / f"{max(taken, default=-1) + 1:05d}"
        try:
            number.mkdir()  # of several processes one gets it at a time
        except FileExistsError:
            continue
        if _numbers(outdir).count(int(number.name)) == 1:
            return number.rename(outdir / f"{number.name}-{description}"[:_LONGEST_NAME])
        number.rmdir()  # another process had it and has renamed it


def _numbers(outdir: Path) -> list[int]:
    return [int(match[1]) for path in outdir.iterdir() if (match := re.match(r"(\d{5})(?:-|$)", path.name))]


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other trainings out of a folder while the block runs; the lock goes with the process, however it ends.

    What a training that was killed left unfinished is removed first.

    Args:
        run_dir: folder of the run.

    Raises:
        RuntimeError: another process trains there.
        OSError: the folder can't be written.
    """
    try:
        import fcntl
    except ImportError:  # not on this system, where nothing is locked
        yield
        return
    path = run_dir / _LOCK_FILE
    with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise FileNotFoundError("another process removed this lock with its end, and a third one has a new one")
        except (BlockingIOError, FileNotFoundError) as error:
            raise RuntimeError(f"another process trains in {run_dir}: wait for it, or give another --outdir") from error
        for part in run_dir.glob(".*.part"):  # of a process that was killed while it wrote
            part.unlink()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_if_empty(run_dir: Path) -> None:
    """Remove the folder `run_dir` of a run that wrote nothing."""
    with contextlib.suppress(OSError):
        run_dir.rmdir()


def append_stats(run_dir: Path, stats: Mapping[str, float]) -> None:
    """Add one line of JSON with `stats` to the statistics in the folder `run_dir`; what is not finite becomes null."""
    line = {name: value if math.isfinite(value) else None for name, value in stats.items()}
    append_line(run_dir / STATS_FILE, json.dumps(line, allow_nan=False))


def cut_stats(run_dir: Path, images_seen: int) -> None:
    """Drop what the folder's files of lines say of the training behind `images_seen` images, from where it goes on.

    Args:
        run_dir: folder of the run, with statistics, reading errors of codes and results of metrics.
        images_seen: where the training stands.
    """
    for path in sorted(path for pattern in _FILES_OF_LINES for path in run_dir.glob(pattern)):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _is_before(line, images_seen)]
        if kept != lines:
            write_file(path, b"".join(kept))


def _is_before(line: bytes, images_seen: int) -> bool:
    try:
        entry: Any = json.loads(line)
        snapshot = entry.get("snapshot_pkl")
        if "kimg" not in entry:  # a metric's result, of a snapshot or of some other file
            return not isinstance(snapshot, str) or kimg_of(Path(snapshot)) * 1000 <= images_seen
        return round(entry["kimg"] * 1000) <= images_seen
    except (ValueError, AttributeError, TypeError):  # cut short when a process was killed
        return False
