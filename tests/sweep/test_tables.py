"""Tables of sweeps: means over seeds, the best by TPL, rank correlations, three formats."""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from pathlib import Path

import pytest

from sc_layers.sweep import tables
from sc_layers.sweep.grid import Run
from sc_layers.sweep.results import FAILED, FINISHED, Result
from sc_layers.sweep.tables import (
    correlations,
    correlations_table,
    measure_among_seeds,
    rows_of,
    settings_table,
    spread,
    table,
)
from tests.networks import save_small_networks
from tests.sweep import samples


def test_deviation_is_that_of_a_sample_and_one_value_has_none() -> None:
    assert spread([1.0, 2.0, 3.0]) == (2.0, 1.0)
    mean, deviation = spread([4.0])
    assert mean == 4
    assert math.isnan(deviation)
    assert all(map(math.isnan, spread([])))


def test_each_setting_is_a_row_and_three_seeds_have_a_row_of_the_best_third() -> None:
    rows = rows_of(samples.herd())
    assert [(row.method, row.setting["code-weight"], len(row.results), row.failed) for row in rows] == [
        *(("ours", 0.1, 3, 0), ("ours+TPL", 0.1, 1, 0), ("ours", 0.01, 3, 0), ("ours+TPL", 0.01, 1, 0)),
        *(("theirs", 0.1, 3, 0), ("theirs+TPL", 0.1, 1, 0), ("theirs", 0.01, 2, 1)),
    ]
    assert rows[1].values("tpl_small_0.3") == [10]


def test_rows_come_in_the_order_of_the_setting_that_is_asked_for() -> None:
    rows = [row for row in rows_of(samples.herd(), "lambda") if not row.selected]
    assert [(row.setting["code-weight"], row.method) for row in rows] == [
        *((0.01, "ours"), (0.01, "theirs"), (0.1, "ours"), (0.1, "theirs"))
    ]


@pytest.mark.parametrize(("kind", "message"), [("rects", "rects does not vary .* method, code-weight"), ("x", "kind")])
def test_a_setting_that_does_not_vary_is_named(kind: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rows_of(samples.herd(), kind)


def test_markdown_shows_mean_deviation_direction_and_failures() -> None:
    lines = settings_table(rows_of(samples.herd()), "markdown").splitlines()
    assert lines[0] == "| method | code-weight | runs | failed | tpl_small_0.3 ↓ | dci ↑ |"
    assert lines[2] == "| ours | 0.1 | 3 | 0 | 11.0 ± 1.0 | 0.890 ± 0.010 |"
    assert lines[3] == "| ours+TPL | 0.1 | 1 | 0 | 10.0 | 0.900 |"
    assert lines[-1] == "| theirs | 0.01 | 2 | 1 | 40.5 ± 0.7 | 0.595 ± 0.007 |"


def test_csv_has_a_column_for_each_number() -> None:
    rows = list(csv.DictReader(settings_table(rows_of(samples.herd()), "csv").splitlines()))
    assert float(rows[0]["tpl_small_0.3 mean"]) == 11
    assert float(rows[0]["tpl_small_0.3 std"]) == 1
    assert rows[-1]["failed"] == "1"


def test_latex_escapes_names_and_closes_its_table() -> None:
    text = settings_table(rows_of(samples.herd()), "latex")
    assert r"tpl\_small\_0.3 $\downarrow$" in text
    assert r"ours & 0.1 & 3 & 0 & 11.0 $\pm$ 1.0 & 0.890 $\pm$ 0.010 \\" in text
    assert text.startswith(r"\begin{tabular}{lccccc}")
    assert text.endswith(r"\end{tabular}")


def test_a_sweep_in_which_all_failed_is_a_table_of_failures() -> None:
    failed = Result({"method": "a"}, 0, {}, {}, FAILED, error="x")
    assert settings_table(rows_of([failed]), "markdown").splitlines()[-1] == "| a | 0 | 1 |"


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ValueError, match="markdown, csv, latex, got 'html'"):
        table(["a"], [[1]], "html")


def test_less_tpl_correlates_with_more_dci(tmp_path: Path) -> None:
    found = correlations(samples.herd(), tmp_path, min_active=5)
    assert found.columns == ("dci",)
    assert found.rows["TPL"] == (11, (pytest.approx(1.0),))
    assert found.rows["TPL (act>4)"][0] == 3  # the third seeds, but for the one that failed
    assert correlations_table(found, "markdown").splitlines()[2] == "| TPL | 11 | 1.00 [1.00, 1.00] |"
    rows = list(csv.reader(io.StringIO(correlations_table(found, "csv"))))
    assert rows[0] == ["method", "models", "dci", "dci low", "dci high"]
    assert [float(cell) for cell in rows[1][1:]] == pytest.approx([11, 1, 1, 1])
    assert rows[2][3:] == ["", ""]  # three models are too few for an interval


def test_pipe_is_a_row_where_it_was_measured(tmp_path: Path) -> None:
    results = [
        dataclasses.replace(one, scores={**one.scores, "pipe": -one.scores["dci"]}) for one in samples.herd()[:-1]
    ]
    found = correlations(results, tmp_path)
    assert found.columns == ("dci",)
    assert list(found.rows) == ["TPL", "pipe", "dci"]
    assert found.rows["pipe"] == (11, (pytest.approx(-1.0),))


def test_without_scores_to_compare_there_is_no_correlation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"need TPL and one of beta_vae, dci, .* of at least 2 runs, got 1"):
        correlations(samples.herd()[:1], tmp_path)


@pytest.fixture
def two_seeds(tmp_path: Path) -> list[Result]:
    """Two runs of one setting that finished, with their networks."""
    measure = {"data": "dsprites", "metrics": "tpl_small_0.3,mig"}
    results = []
    for seed in (0, 1):
        scores = {"tpl_small_0.3": 1.0 + seed, "mig": 0.5 - seed / 10}
        results.append(Result({"method": "a"}, seed, {}, measure, FINISHED, scores, 3, "network-snapshot-000001.pt"))
        folder = tmp_path / Run({"method": "a"}, seed, {}, measure).name
        folder.mkdir()
        save_small_networks(folder / "network-snapshot-000001.pt", seed)
    return results


def test_udr_and_model_centrality_compare_the_models_of_a_setting(two_seeds: list[Result], tmp_path: Path) -> None:
    scores = measure_among_seeds(two_seeds, tmp_path, udr_images=20, centrality_votes=10)
    assert sorted(map(str, scores)) == sorted(str(tables.network_path(one, tmp_path)) for one in two_seeds)
    assert all(list(values) == ["udr", "model_centrality"] for values in scores.values())
    assert all(0 <= value <= 1 for values in scores.values() for value in values.values())
    rows = correlations(two_seeds, tmp_path, among_seeds=scores).rows
    assert (rows["udr"][0], rows["model_centrality"][0]) == (2, 2)


def test_scores_among_seeds_are_measured_where_they_are_asked_for(two_seeds: list[Result], tmp_path: Path) -> None:
    scores = measure_among_seeds(two_seeds, tmp_path, udr_images=20)
    assert all(list(values) == ["udr"] for values in scores.values())
    assert "model_centrality" not in correlations(two_seeds, tmp_path, among_seeds=scores).rows
