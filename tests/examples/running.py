"""Running an example as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_example(name: str, *arguments: object) -> str:
    """What `python examples/NAME ARGUMENTS` prints; it must end well."""
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    path = os.pathsep.join([str(EXAMPLES.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    result = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent, env=environment)
    assert result.returncode == 0, result.stderr
    return result.stdout
