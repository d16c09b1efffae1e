"""Training from Python leaves a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.running import run_example


@pytest.mark.slow
def test_a_short_training_leaves_a_page_and_says_how_to_go_on(tmp_path: Path) -> None:
    printed = run_example("04_train_ps_sc.py", "--outdir", tmp_path, "--kimg", "0.032")
    (run_dir,) = tmp_path.iterdir()
    assert f"sc-layers train --resume {run_dir}" in printed
    assert (run_dir / "report.html").stat().st_size > 0
