"""The demonstration trains, and its page shows what it made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
def test_the_demo_leaves_a_page_whose_pictures_are_there(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--outdir", str(tmp_path), "--kimg", "0.016"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=EXAMPLES.parent)
    assert result.returncode == 0, result.stderr
    page = (tmp_path / "report.html").read_text()
    assert f"look at {tmp_path / 'report.html'}" in result.stdout
    assert page.count("data:image/png;base64,") >= 4


def test_every_example_has_a_test() -> None:
    scripts = {path.stem for path in EXAMPLES.glob("*.py")} | {"notebooks"}
    assert scripts == {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
