"""Files that ask for much are refused within seconds and little memory, and named: see `bombs`, which limits itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.checkpoints.bombs import BOMBS, SECONDS


def test_no_file_takes_much_time_or_memory_and_every_failure_names_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.checkpoints.bombs", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [name for name, *_ in lines] == list(BOMBS)
    harmless = {"2^1000 as TensorFlow's fmap_decay"}  # which makes every width the least one
    for name, _, seconds, outcome in lines:
        assert outcome == "loaded" if name in harmless else outcome.startswith("FILE: "), name
        assert seconds <= SECONDS, name
        assert len(outcome) < 2100, name
