"""The benchmark of TPL runs and reports what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.scripts import load_script


def test_the_benchmark_prints_its_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load_script("benchmarks/bench_tpl.py")
    sizes = ["--points", "5", "--sweeps", "2", "--size", "16", "--batch", "4", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_tpl", "--distance", "mse", *sizes, "--json", str(tmp_path / "tpl.json")])
    module.main()
    table = capsys.readouterr().out
    result = json.loads((tmp_path / "tpl.json").read_text())
    assert result["limit"] == 2 * 4 / 5
    assert f"speedup, wall         {result['speedup']:8.2f}    (limit 1.60)" in table
    assert f"whole TPL             {result['whole_tpl_s']:8.3f} s for 2 sweeps" in table
