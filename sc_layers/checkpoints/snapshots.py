"""Network snapshots in the folder of a run: how they are named, and which one is meant."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import check_regular

PREFIX = "network-snapshot-"
SUFFIXES = (".safetensors", ".pt", ".pkl")  # ours, and `.pkl` of NVlabs' programs too


def snapshot_name(images_seen: int) -> str:
    """File name of the snapshot after `images_seen` real images, with thousands of them in six digits.

    >>> snapshot_name(72_000)
    'network-snapshot-000072.safetensors'
    """
    return f"{PREFIX}{images_seen // 1000:06d}{SUFFIXES[0]}"


def _age(path: Path) -> tuple[int, int]:
    """Thousands of images in the name of a snapshot; of equal ones the suffix that comes first is the newest."""
    number = re.match(r"\d+", path.name.removeprefix(PREFIX))
    return (int(number[0]) if number else -1, -SUFFIXES.index(path.suffix))


def snapshots_in(folder: str | Path) -> list[Path]:
    """All snapshots in a folder, oldest first: an empty list where there are none."""
    return sorted((path for path in Path(folder).glob(f"{PREFIX}*") if path.suffix in SUFFIXES), key=_age)


def find_snapshot(path: str | Path) -> Path:
    """The network file that `path` names: itself, or the newest snapshot of a run's folder.

    Args:
        path: a file, or the folder of a run.

    Raises:
        FileNotFoundError: there is none.
        ValueError: `path` is a pipe or a device.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no such network file or run folder: {str(path)!r}")
    if not path.is_dir():
        check_regular(path)
        return path
    found = snapshots_in(path)
    if not found:
        raise FileNotFoundError(f"no {PREFIX}*{' or '.join(SUFFIXES)} in the folder {str(path)!r}")
    return found[-1]
