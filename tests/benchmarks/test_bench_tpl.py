"""The benchmark of TPL runs and reports what it says."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "bench_tpl.py"


def test_the_benchmark_prints_its_table_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = importlib.util.spec_from_file_location("bench_tpl", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sizes = ["--points", "5", "--sweeps", "2", "--size", "16", "--batch", "4", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["bench_tpl", "--distance", "mse", *sizes, "--json", str(tmp_path / "tpl.json")])
    module.main()
    table = capsys.readouterr().out
    result = json.loads((tmp_path / "tpl.json").read_text())
    assert result["limit"] == 2 * 4 / 5
    assert f"speedup, wall         {result['speedup']:8.2f}    (limit 1.60)" in table
    assert f"whole TPL             {result['whole_tpl_s']:8.3f} s for 2 sweeps" in table
