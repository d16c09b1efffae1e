"""The checkpoints of many runs, and what was measured of them, kept beside them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.snapshots import snapshots_in
from ..files import append_line, read_json_lines

RESULTS_FILE = "select.jsonl"


@dataclass(frozen=True)
class Found:
    """Checkpoints, and what was not taken.

    Attributes:
        checkpoints: network files.
        notes: a line of text about everything that was left out.
    """

    checkpoints: list[Path]
    notes: list[str]


def find_checkpoints(paths: Sequence[str | os.PathLike[str]], all_snapshots: bool = False) -> Found:
    """Network files: those named, and the newest `network-snapshot-*` of each folder named.

    Snapshots of one run are not compared with each other unless that is asked for: TPL prefers the early ones.

    Args:
        paths: files and run folders. A folder without snapshots, such as that of a run that has just begun, is skipped.
        all_snapshots: take all snapshots of the folders.

    Raises:
        FileNotFoundError: a path that does not exist, or no network file in any of them.
    """
    found: list[Path] = []
    notes: list[str] = []
    left_out = 0
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"no such network file or run folder: {str(path)!r}")
        snapshots = [path] if path.is_file() else snapshots_in(path)
        if not snapshots:
            notes.append(f"{path}: skipped: no network-snapshot-* in the folder")
        taken = snapshots if all_snapshots else snapshots[-1:]
        left_out += len(snapshots) - len(taken)
        found += taken
    if not found:
        raise FileNotFoundError(f"no network file and no network-snapshot-* in {', '.join(map(str, paths))}")
    if left_out:
        notes.append(f"{left_out} older snapshots of these runs are left out (--all-snapshots takes them)")
    return Found(list(dict.fromkeys(found)), notes)


class MeasuredStore:
    """What was measured of the checkpoints of all folders: one line of JSON each, beside the checkpoints.

    A line carries the settings and the file's size and time, so results of other settings or of a file that has changed
    are not mistaken for these. Processes append whole lines, so they can share a file.

    Args:
        settings: everything that decides the results, ready for JSON.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = json.loads(json.dumps(settings))

    def _key(self, path: Path) -> dict[str, Any]:
        status = path.stat()
        return {"file": path.name, "size": status.st_size, "time": status.st_mtime_ns, "settings": self.settings}

    def load(self, path: Path) -> dict[str, Any] | None:
        """The last line about the checkpoint `path`, if there is one."""
        key = self._key(path)
        found = [entry for entry in read_json_lines(path.with_name(RESULTS_FILE)) if entry.get("key") == key]
        return found[-1] if found else None

    def save(self, path: Path, entry: Mapping[str, Any]) -> None:
        """Append `entry` as a line about the checkpoint `path`."""
        results = path.with_name(RESULTS_FILE)
        append_line(results, json.dumps({"key": self._key(path), **entry}))
