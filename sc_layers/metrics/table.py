"""How results are shown and written: a table, lines of JSON in a run's folder, CSV, and a row of LaTeX."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import append_line, write_file
from .score import Score

ARROWS = {True: "↑", False: "↓"}
WORDS = {True: "more", False: "less"}  # for terminals that can't show the arrows
LATEX_ARROWS = {True: r"$\uparrow$", False: r"$\downarrow$"}


def append_result(
    run_dir: str | Path, metric: str, results: dict[str, Any], seconds: float, snapshot: str | None = None
) -> dict[str, Any]:
    """Append a line to `metric-NAME.jsonl`, as StyleGAN code bases write them.

    Args:
        run_dir: existing folder.
        metric: name of the metric.
        results: numbers by name; the one named as the metric is the headline.
        seconds: time that the metric took.
        snapshot: the network file that was measured, if there is one.

    Returns:
        The line's content, with the keys of StyleGAN2-ADA: `results`, `metric`, `total_time`, `snapshot_pkl`,
        `timestamp`.
    """
    line = {
        "results": results,
        "metric": metric,
        "total_time": seconds,
        "snapshot_pkl": snapshot,
        "timestamp": time.time(),
    }
    append_line(Path(run_dir) / f"metric-{metric}.jsonl", json.dumps(line))
    return line


def score_table(scores: Sequence[Score], higher: Mapping[str, bool], arrows: Mapping[bool, str] = ARROWS) -> str:
    """One line a score: name, value, which direction is better, further numbers, and its note.

    Args:
        scores: what was measured.
        higher: whether more is better, by the metric's name.
        arrows: what stands for more and for less.
    """
    lines = [f"{'metric':<14} {'value':>10}  better"]
    for score in scores:
        numbers = [f"{key} {value:.4g}" for key, value in _numbers(score).items()]
        beside = ", ".join([*([score.note] if score.note else []), *numbers])
        line = f"{score.name:<14} {score.score:10.4f}  {arrows[higher[score.name]]:<6}"
        lines.append(f"{line}  {beside}".rstrip())
    return "\n".join(lines)


def _numbers(score: Score) -> dict[str, float]:
    """The details that are single numbers, without the headline under another name."""
    return {
        key: value
        for key, value in score.details.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key != "total"
    }


def write_json(path: Path, scores: Sequence[Score]) -> None:
    """Write `scores` with all details to `path`."""
    write_file(path, (json.dumps([score.to_dict() for score in scores], indent=2) + "\n").encode())


def write_csv(path: Path, scores: Sequence[Score], higher: Mapping[str, bool]) -> None:
    """Write a line for each number to `path`: metric, quantity, value, better (of the headline), note.

    Args:
        path: the file.
        scores: what was measured.
        higher: whether more is better, by the metric's name.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["metric", "quantity", "value", "better", "note"])
    for score in scores:
        better = "higher" if higher[score.name] else "lower"
        writer.writerow([score.name, score.name, score.score, better, score.note])
        writer.writerows([score.name, key, value, "", ""] for key, value in _numbers(score).items())
    write_file(path, text.getvalue().encode())


def latex_row(name: str, scores: Sequence[Score], higher: Mapping[str, bool]) -> str:
    """A header that names metrics and directions as a comment, and one row of a table.

    Args:
        name: first column of the row.
        scores: the other columns.
        higher: whether more is better, by the metric's name.

    >>> print(latex_row("ours_1", [Score("fid", 12.345)], {"fid": False}))
    % model & fid $\\downarrow$ \\\\
    ours\\_1 & 12.3 \\\\
    """
    header = " & ".join(["model", *(f"{latex_escaped(s.name)} {LATEX_ARROWS[higher[s.name]]}" for s in scores)])
    row = " & ".join([latex_escaped(name), *(f"{s.score:.3g}" for s in scores)])
    return rf"% {header} \\" + "\n" + rf"{row} \\"


def latex_escaped(text: str) -> str:
    """The same `text` for LaTeX, where some letters are commands."""
    return "".join(f"\\{letter}" if letter in "_%&#$" else letter for letter in text)
