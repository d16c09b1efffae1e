"""Plots of sweeps: what stands where."""

from __future__ import annotations

from typing import Any

import pytest

from sc_layers.sweep.figures import plot_ranking, plot_settings
from sc_layers.sweep.results import FAILED, Result
from sc_layers.sweep.tables import rows_of
from tests.sweep import samples


def _bars(axes: Any) -> list[tuple[list[float], list[float]]]:
    """Places and means of each line of points."""
    return [(list(map(float, bars[0].get_xdata())), list(map(float, bars[0].get_ydata()))) for bars in axes.containers]


def test_methods_have_a_panel_for_each_metric_and_a_point_for_each_row() -> None:
    rows = rows_of(samples.herd())
    tpl, dci = plot_settings(rows, "methods").axes
    assert tpl.get_ylabel() == "tpl_small_0.3 (less is better)"
    assert [means for _, means in _bars(tpl)] == [[11], [10], [21], [20], [31], [30], [40.5]]
    assert len(_bars(dci)) == len(rows)


def test_error_bars_reach_one_standard_deviation() -> None:
    axes, _ = plot_settings(rows_of(samples.herd()), "methods").axes
    (segment,) = axes.containers[0][2][0].get_segments()
    assert segment[:, 1].tolist() == [10, 12]


def test_a_setting_has_a_line_for_each_method() -> None:
    axes, _ = plot_settings(rows_of(samples.herd(), "lambda"), "lambda").axes
    assert axes.get_xlabel() == "code-weight"
    assert axes.get_xscale() == "log"
    places, means = _bars(axes)[0]
    assert means == [21, 11]
    assert places == pytest.approx([0.01, 0.1], rel=0.1)


def test_the_ranking_has_settings_by_tpl_and_leaves_the_best_seeds_out() -> None:
    (axes,) = plot_ranking(rows_of(samples.herd()), "dci").axes
    assert [places for places, _ in _bars(axes)] == [[1, 2], [3, 4]]
    assert _bars(axes)[0][1] == pytest.approx([0.89, 0.79])


def test_what_was_not_measured_is_not_drawn() -> None:
    failed = [Result({"method": "a"}, 0, {}, {}, FAILED)]
    with pytest.raises(ValueError, match="nothing to draw"):
        plot_settings(rows_of(failed), "methods")
    with pytest.raises(ValueError, match="no setting of this sweep has TPL and mig"):
        plot_ranking(rows_of(samples.herd()), "mig")


def test_no_two_methods_look_alike_and_the_best_seeds_look_like_their_method() -> None:
    methods = [f"method {number}" for number in range(8)]
    rows = rows_of([samples.result(method, seed, 10, 0.5) for method in methods for seed in range(3)])
    axes, _ = plot_settings(rows, "methods").axes
    looks = [(line.get_color(), line.get_marker()) for line, *_ in axes.containers]
    assert looks[::2] == looks[1::2]
    assert len(set(looks)) == len(methods)
