"""`sc-layers explore` in a process of its own, as a user starts it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def explorer(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The running command, and the lines that it printed up to the address of its page."""
    command = [sys.executable, "-u", "-m", "sc_layers", "explore", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.strip())
        if line.startswith("http"):
            break
    try:
        yield process, lines
    finally:
        process.kill()
        process.communicate()
