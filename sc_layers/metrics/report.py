"""Metric results in a run directory: one line of JSON each, as StyleGAN code bases write them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def append_result(
    run_dir: str | Path, metric: str, results: dict[str, Any], seconds: float, snapshot: str | None = None
) -> dict[str, Any]:
    """Append a line to `metric-NAME.jsonl`.

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
    with (Path(run_dir) / f"metric-{metric}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line
