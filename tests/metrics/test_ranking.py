"""Ranking by TPL and rank correlations."""

from __future__ import annotations

import pytest

from sc_layers.metrics.ranking import Candidate, correlation_table, rank_candidates, spearman
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
    assert table.to_dict() == {"TPL": {"models": 1, "FVM": None}}


def test_sides_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        spearman([1.0], [1.0, 2.0])


def test_the_correlation_table_has_the_form_of_table_1() -> None:
    table = correlation_table(HERD, ["FVM", "MIG"], min_actives=(1, 5), others=["FVM"])
    assert list(table.rows) == ["TPL (act>0)", "TPL (act>4)", "FVM"]
    assert table.rows["TPL (act>4)"] == (3, (pytest.approx(1), pytest.approx(0.5)))
    assert table.rows["FVM"][1][0] == pytest.approx(1)
    assert table.to_dict()["TPL (act>4)"] == {"models": 3, "FVM": pytest.approx(1), "MIG": pytest.approx(0.5)}
    assert str(table).splitlines()[0].split() == ["method", "models", "FVM", "MIG"]


def test_a_candidate_without_a_score_is_named() -> None:
    with pytest.raises(ValueError, match="a has no score 'DCI'; it has FVM, MIG"):
        correlation_table(HERD, ["DCI"])
