"""The example of attaching trains, fine-tunes, and draws what the codes do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "attach.py"


@pytest.mark.slow
def test_the_example_reports_before_and_after_and_leaves_a_sheet(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--outdir", str(tmp_path), "--images", "32", "--tune-kimg", "0.032"]
    for kimg in ("0.032", "0"):  # the second time from the file of the first
        result = subprocess.run([*command, "--kimg", kimg], capture_output=True, text=True, cwd=SCRIPT.parents[1])
        assert result.returncode == 0, result.stderr
    printed = result.stdout.splitlines()
    assert "before: gains: 0.00 0.00 0.00 0.00 0.00 0.00" in printed
    assert [line for line in printed if line.startswith("after: gains:") and "0.0" in line]
    assert (tmp_path / "attached.png").stat().st_size > 0
