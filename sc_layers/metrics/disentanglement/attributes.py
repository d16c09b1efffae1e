"""Tables of attributes that lie beside image files, such as CelebA's `list_attr_celeba.txt`."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...files import check_regular
from ..score import Floats


def read_attributes(path: str | os.PathLike[str], files: Sequence[str]) -> tuple[Floats, tuple[str, ...]]:
    """The attributes of image files.

    Args:
        path: a CSV table whose first line names the columns and whose first column has the file names; or a table
            separated by spaces as CelebA has it, whose first line may be the number of images and whose header names
            the attributes alone.
        files: names of the images, with or without folders; a table of bare names fits them in any folder.

    Returns:
        values [N, F] in the order of `files`, and the names of the F attributes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not such a table; an image that it lacks, or has twice; a value that is no number.
    """
    path = Path(path)
    check_regular(path)
    header, rows = _table(path)
    by_name = {row[0]: row[1:] for row in rows}
    if len(by_name) != len(rows):
        raise ValueError(f"{path} has {len(rows) - len(by_name)} images more than once")
    found = [by_name.get(name, by_name.get(Path(name).name)) for name in files]
    missing = [name for name, row in zip(files, found, strict=True) if row is None]
    if missing:
        raise ValueError(f"{path} has no attributes of {missing[0]} ({len(missing)} of {len(files)} images lack them)")
    try:
        values = np.array([row for row in found if row is not None], dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path} must hold numbers after the file names: {error}") from error
    return values, header


def _table(path: Path) -> tuple[tuple[str, ...], list[list[str]]]:
    """Names of the attributes, and rows of a file name and as many values."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file)) if path.suffix.lower() == ".csv" else [line.split() for line in file]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of text: {error}") from error
    lines = [line for line in lines if line]
    if lines and len(lines[0]) == 1 and lines[0][0].isdigit():  # CelebA's first line: how many images
        lines = lines[1:]
    if len(lines) < 2 or len(lines[1]) < 2:
        raise ValueError(f"{path} holds {len(lines)} lines, expected a header and a line for each image")
    width = len(lines[1])
    odd = next((number for number, line in enumerate(lines[1:], 2) if len(line) != width), None)
    if odd is not None or len(lines[0]) not in (width, width - 1):
        raise ValueError(f"{path}: line {odd or 1} of the table has {len(lines[(odd or 1) - 1])} entries, not {width}")
    return tuple(lines[0][-(width - 1) :]), lines[1:]
