"""Tables, lines of JSON, CSV and LaTeX."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from sc_layers.metrics.score import Score
from sc_layers.metrics.table import append_result, latex_row, score_table, write_csv, write_json

SCORES = [
    Score("fid", 12.345678, {"num_reals": 90, "means": [1.0, 2.0]}, "90 of the standard's 50,000 images"),
    Score("mig", 0.25),
]
HIGHER = {"fid": False, "mig": True}


def test_the_table_shows_directions_notes_and_single_numbers() -> None:
    header, fid, mig = score_table(SCORES, HIGHER).splitlines()
    assert header.split() == ["metric", "value", "better"]
    assert fid.split(maxsplit=3) == ["fid", "12.3457", "↓", "90 of the standard's 50,000 images, num_reals 90"]
    assert mig.split() == ["mig", "0.2500", "↑"]


def test_csv_has_a_line_for_each_number(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", SCORES, HIGHER)
    rows = list(csv.reader((tmp_path / "a.csv").open()))
    assert rows == [
        ["metric", "quantity", "value", "better", "note"],
        ["fid", "fid", "12.345678", "lower", "90 of the standard's 50,000 images"],
        ["fid", "num_reals", "90", "", ""],
        ["mig", "mig", "0.25", "higher", ""],
    ]


def test_json_has_everything(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", SCORES)
    loaded = json.loads((tmp_path / "a.json").read_text())
    assert loaded[0]["means"] == [1.0, 2.0]
    assert loaded[0]["note"] == SCORES[0].note
    assert loaded[1] == {"name": "mig", "score": 0.25}


def test_a_latex_row_escapes_names_and_has_a_column_for_each_metric() -> None:
    header, row = latex_row("run_1 50%", SCORES, HIGHER).splitlines()
    assert header == r"% model & fid $\downarrow$ & mig $\uparrow$ \\"
    assert row == r"run\_1 50\% & 12.3 & 0.25 \\"


def test_results_are_appended_as_stylegan_writes_them(tmp_path: Path) -> None:
    for seconds in (1.0, 2.0):
        append_result(tmp_path, "fid", {"fid": 3.0}, seconds, "network-snapshot-000001.pkl")
    lines = [json.loads(line) for line in (tmp_path / "metric-fid.jsonl").read_text().splitlines()]
    assert [line["total_time"] for line in lines] == [1, 2]
    assert set(lines[0]) == {"results", "metric", "total_time", "snapshot_pkl", "timestamp"}
