"""Ranking by TPL and rank correlations."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from sc_layers.metrics.ranking import Candidate, correlation_table, rank_candidates, spearman, spearman_interval
from tests.tolerances import SCORE

HERD = [
    Candidate("a", 3.0, 5, scores={"FVM": 0.9, "MIG": 0.5}),
    Candidate("b", 1.0, 2, scores={"FVM": 0.1, "MIG": 0.1}),
    Candidate("c", 4.0, 6, scores={"FVM": 0.7, "MIG": 0.3}),
    Candidate("d", 5.0, 5, scores={"FVM": 0.5, "MIG": 0.4}),
]


def test_the_smallest_tpl_comes_first_among_models_with_enough_active_codes() -> None:
    assert [c.name for c in rank_candidates(HERD)] == ["b", "a", "c", "d"]
    assert [c.name for c in rank_candidates(HERD, min_active=5)] == ["a", "c", "d"]
    assert [c.name for c in rank_candidates(HERD, min_active=5, top=2)] == ["a", "c"]


@pytest.mark.parametrize("arguments", [{"min_active": -1}, {"top": 0}])
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"min_active|top"):
        rank_candidates(HERD, **arguments)


def test_spearman_is_the_correlation_of_ranks_with_ties_shared() -> None:
    # Ranks 3, 1.5, 4, 1.5, 5 and 2.5, 4, 1, 5, 2.5.
    assert spearman([3.0, 1.0, 4.0, 1.0, 5.0], [2.0, 7.0, 1.0, 8.0, 2.0]) == pytest.approx(-7.5 / 9.5, abs=SCORE)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], [2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
def test_too_few_or_constant_values_have_no_correlation(first: list[float], second: list[float]) -> None:
    assert spearman(first, second) is None


def test_a_correlation_that_does_not_exist_is_a_dash_and_null() -> None:
    table = correlation_table(HERD[:1], ["FVM"])
    assert str(table).splitlines()[1].split() == ["TPL", "1", "-"]
    assert table.to_dict() == {"TPL": {"models": 1, "FVM": None, "intervals": {"FVM": None}}}


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        spearman([1.0], [1.0, 2.0])


def test_the_correlation_table_has_the_form_of_table_1() -> None:
    table = correlation_table(HERD, ["FVM", "MIG"], min_actives=(1, 5), others=["FVM"])
    assert list(table.rows) == ["TPL (act>0)", "TPL (act>4)", "FVM"]
    assert table.rows["TPL (act>4)"] == (3, (pytest.approx(1), pytest.approx(0.5)))
    assert table.rows["FVM"][1][0] == pytest.approx(1)
    stored = {"models": 3, "FVM": pytest.approx(1), "MIG": pytest.approx(0.5)}
    assert table.to_dict()["TPL (act>4)"] == {**stored, "intervals": {"FVM": None, "MIG": None}}
    assert str(table).splitlines()[0].split() == ["method", "models", "FVM", "MIG"]
    assert table.cells("TPL (act>4)") == ["1.00", "0.50"]


def test_the_interval_of_a_correlation_holds_it_and_shrinks_with_more_models() -> None:
    # Of 30 values with a true correlation of .6, scipy's bootstrap gives the same to .02.
    draws = np.random.default_rng(0)
    first = draws.normal(size=300)
    second = 0.6 * first + 0.8 * draws.normal(size=300)
    few, many = (spearman_interval(first[:num].tolist(), second[:num].tolist()) for num in (30, 300))
    expected = scipy.stats.bootstrap(
        (first[:30], second[:30]),
        lambda a, b: scipy.stats.spearmanr(a, b).statistic,
        paired=True,
        vectorized=False,
        method="percentile",
        n_resamples=2000,
        random_state=1,
    ).confidence_interval
    assert few == pytest.approx((expected.low, expected.high), abs=0.02)
    assert few[0] < spearman(first[:30].tolist(), second[:30].tolist()) < few[1]
    assert few[0] < many[0] < 0.6 < many[1] < few[1]
    assert spearman_interval([1.0, 2.0, 3.0], [1.0, 3.0, 2.0]) is None


def test_a_candidate_without_a_score_is_named() -> None:
    with pytest.raises(ValueError, match="a has no score 'DCI'; it has FVM, MIG"):
        correlation_table(HERD, ["DCI"])
