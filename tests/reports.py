"""Commands under a time limit, their printed output in files, and a table of what came of them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run(
    command: Sequence[str | Path], log: Path, limit: float, cwd: Path, environment: Mapping[str, str]
) -> str | None:
    """Run a command with its output in `log`; what went wrong, or None.

    After `limit` seconds it is ended, together with every process that it started.
    """
    with log.open("w") as file:
        process = subprocess.Popen(
            [*map(str, command)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return f"not done within {limit:.0f} s"
    if code < 0:
        return f"ended by {signal.Signals(-code).name}"
    return f"exit status {code}" if code else None


def counts(output: str) -> str:
    """What pytest counted, such as "3 failed, 10 passed"; empty if it came to no end."""
    closing = re.findall(
        r"^.*\d (?:passed|failed|skipped|errors?|deselected)\b.* in [\d.]+s\b.*$", output, re.MULTILINE
    )
    return ", ".join(re.findall(r"\d+ (?:passed|failed|skipped|errors?|xfailed)\b", closing[-1])) if closing else ""


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells in columns; the first row is the head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), flush=True)
