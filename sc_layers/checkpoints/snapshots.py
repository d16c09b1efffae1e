"""Network files in folders: how the snapshots of a run are named, and which file is meant."""

from __future__ import annotations

import re
from pathlib import Path

from ..files import check_regular

PREFIX = "network-snapshot-"
WEIGHTS_FILE = "model.safetensors"  # in a folder as the Hugging Face hub has it
SUFFIXES = (".safetensors", ".pt", ".pkl")  # ours, and `.pkl` of NVlabs' programs too


def kimg_label(images_seen: int) -> str:
    """Thousands of `images_seen` as names of files have them: six digits, and three more behind a point if need be.

    >>> kimg_label(72_000), kimg_label(512)
    ('000072', '000000.512')
    """
    thousands, rest = divmod(images_seen, 1000)
    return f"{thousands:06d}.{rest:03d}" if rest else f"{thousands:06d}"


def snapshot_name(images_seen: int) -> str:
    """File name of the snapshot after `images_seen` real images.

    >>> snapshot_name(72_000)
    'network-snapshot-000072.safetensors'
    """
    return f"{PREFIX}{kimg_label(images_seen)}{SUFFIXES[0]}"


def kimg_of(path: Path) -> float:
    """Thousands of images in the name of `path`, `...-LABEL.SUFFIX`, see `kimg_label`; -1 where there are none."""
    number = re.fullmatch(r".*-(\d+(?:\.\d+)?)", path.stem)
    return float(number[1]) if number else -1.0


def _age(path: Path) -> tuple[float, int]:
    """Of equal thousands of images the suffix that comes first is the newest."""
    return (kimg_of(path), -SUFFIXES.index(path.suffix))


def snapshots_in(folder: str | Path) -> list[Path]:
    """All snapshots in a folder, oldest first: an empty list where there are none."""
    return sorted((path for path in Path(folder).glob(f"{PREFIX}*") if path.suffix in SUFFIXES), key=_age)


def find_snapshot(path: str | Path) -> Path:
    """The network file that `path` names: itself, the newest snapshot of a run's folder, or the one of a hub folder.

    Args:
        path: a file, the folder of a run, or one that `hub.save_pretrained` wrote.

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
    if found:
        return found[-1]
    if (path / WEIGHTS_FILE).is_file():
        return path / WEIGHTS_FILE
    names = f"{PREFIX}*{' or '.join(SUFFIXES)}, nor {WEIGHTS_FILE},"
    raise FileNotFoundError(f"no {names} in the folder {str(path)!r}")
