"""Ranking snapshots without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples.running import run_example


@pytest.mark.slow
def test_snapshots_are_ranked_by_tpl(tmp_path: Path) -> None:
    run_example("04_train_ps_sc.py", "--outdir", tmp_path, "--kimg", "0.032")
    lines = run_example(
        "05_model_selection.py", *tmp_path.iterdir(), "--votes", 10, "--distance", "mse", "--traversals", 2
    ).splitlines()
    assert "FactorVAE" in lines[0]
    totals = [float(line.split()[0]) for line in lines[1:]]
    assert len(totals) == 2
    assert totals == sorted(totals)
