"""The labels that StyleGAN's data sets keep in a `dataset.json`."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt

from ..damage import named_if_damaged
from ..limits import label_limit, read_bounded
from .files import LABEL_FILE, Files

LARGEST_CLASS = 2**31


def finite_labels(labels: npt.NDArray[Any], where: object) -> npt.NDArray[Any]:
    """The labels as they are.

    Args:
        labels: numbers, one row an image.
        where: what messages call them.

    Raises:
        ValueError: one is NaN or infinite.
    """
    if not np.isfinite(labels).all():
        row = np.argwhere(~np.isfinite(labels))[0][0]
        raise ValueError(f"{where} gives image {row} a label that is no finite number")
    return labels


def _entries(files: Files, num_images: int, where: object) -> dict[str, Any]:
    """Label by file name: `{"labels": [[name, class or vector], ...]}`, or null for none."""
    with named_if_damaged(where, '{"labels": [[file name, label], ...]}'), files.open(LABEL_FILE) as file:
        content = json.loads(read_bounded(file, label_limit(num_images), where))
        return {name.replace("\\", "/"): label for name, label in content.get("labels") or []}


def read_labels(files: Files, names: list[str]) -> npt.NDArray[Any] | None:
    """The labels in the order of `names`, [N] int64 for classes or [N, L] float32 for vectors; None for none.

    Args:
        files: with a label file beside them.
        names: the pictures' file names.

    Raises:
        ValueError: the label file is too large or damaged, lacks one of the files, or has labels that are no numbers.
    """
    where = files.path / LABEL_FILE
    by_name = _entries(files, len(names), where)
    if not by_name:
        return None
    missing = [name for name in names if name not in by_name]
    if missing:
        raise ValueError(f"{where} has no label for {missing[0]} ({len(missing)} of {len(names)} images lack one)")
    try:
        labels = np.array([by_name[name] for name in names])
    except ValueError as error:
        raise ValueError(f"{where} mixes labels of different lengths") from error
    if labels.ndim > 2 or not np.issubdtype(labels.dtype, np.number):
        raise ValueError(f"{where} must give every image a class number or a list of numbers, got {labels.dtype}")
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer):
        if labels.min() < 0 or labels.max() > LARGEST_CLASS:
            raise ValueError(
                f"{where} has classes from {labels.min()} to {labels.max()}, expected 0 to {LARGEST_CLASS}"
            )
        return labels.astype(np.int64)
    with np.errstate(over="ignore"):
        return finite_labels(labels.astype(np.float32).reshape(len(names), -1), where)
