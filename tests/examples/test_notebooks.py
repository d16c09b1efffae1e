"""The notebooks run as they stand, and stand in the repository with what they show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.mark.slow
def test_notebooks_run_from_top_to_bottom(tmp_path: Path) -> None:
    pytest.importorskip("nbmake")
    assert len(NOTEBOOKS) == 2
    options = ["-q", "-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=300", "--rootdir", FOLDER]
    command = [sys.executable, "-m", "pytest", *options, *NOTEBOOKS]
    result = subprocess.run([*map(str, command)], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout
    assert "2 passed" in result.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_pictures_and_small(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    assert path.stat().st_size < 450_000
    assert "/tmp/" not in path.read_text()
