"""What the Makefile's targets would do."""

from __future__ import annotations

import subprocess
from pathlib import Path


def test_clean_deletes_what_make_made_and_no_trained_run() -> None:
    command = ["make", "--dry-run", "clean"]
    deleted = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout
    assert {".venv", "build", "dist"} <= set(deleted.split())
    assert not {"runs", "demo", "."} & set(deleted.split())
