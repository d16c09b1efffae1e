"""MIG, modularity and explicitness: reference numbers, perfect and degenerate representations."""

from __future__ import annotations

import numpy as np
import pytest

from sc_layers.metrics.disentanglement.factors import sample_codes
from sc_layers.metrics.disentanglement.information import (
    discretize,
    entropy,
    explicitness_from_codes,
    mig,
    mig_from_codes,
    modularity,
    modularity_from_information,
    mutual_information,
)
from tests.golden import load_golden
from tests.metrics.disentanglement.tables import CellTable, Table, identity, perfect_table
from tests.tolerances import OPTIMISED, PERFECT, SCORE


def dislib_table() -> Table:
    golden = load_golden("metrics_dislib")
    return Table(golden.numpy("table_codes"), golden.numpy("table_factor_sizes"))


def test_mig_is_that_of_the_papers_program() -> None:
    golden = load_golden("metrics_official")
    table = CellTable(golden.numpy("codes"), golden.numpy("factor_sizes"))
    result = mig(identity, table, num_samples=1500, seed=123)
    np.testing.assert_allclose(result.details["mutual_information"], golden.numpy("mig_matrix"), atol=SCORE)
    np.testing.assert_allclose(result.details["entropy"], golden.numpy("mig_entropy"), atol=SCORE)
    assert result.score == pytest.approx(golden.config["scores"]["mig"]["_discrete_mig"], abs=SCORE)


def test_codes_are_cut_into_the_bins_of_the_papers_program() -> None:
    golden = load_golden("metrics_official")
    bins = discretize(golden.numpy("mig_mus").T, 20)
    assert np.array_equal(bins.T, golden.numpy("mig_discretized"))


def test_mig_is_that_of_the_reference_library() -> None:
    golden = load_golden("metrics_dislib")
    expected = golden.config["scores"]["mig"]["discrete_mig"]
    assert mig(identity, dislib_table(), num_samples=1000, draw_size=16).score == pytest.approx(expected, abs=SCORE)


def test_samples_are_those_of_the_reference_library() -> None:
    golden = load_golden("metrics_dislib")
    ((codes, factors),) = sample_codes(identity, dislib_table(), [1000], np.random.RandomState(0), 16, 256, None)
    assert np.array_equal(codes.T, golden.numpy("sampled1000_mus"))
    assert np.array_equal(factors.T, golden.numpy("sampled1000_ys"))


def test_information_entropy_and_mig_of_fixed_samples_match() -> None:
    golden = load_golden("metrics_dislib")
    codes, factors = golden.numpy("fix_mus_train").T, golden.numpy("fix_ys_train").T
    assert np.array_equal(discretize(codes).T, golden.numpy("fix_discretized"))
    information = mutual_information(discretize(codes), factors)
    np.testing.assert_allclose(information, golden.numpy("fix_mutual_info"), atol=SCORE)
    np.testing.assert_allclose(entropy(factors), golden.numpy("fix_entropy"), atol=SCORE)
    scores = golden.config["scores"]
    assert mig_from_codes(codes, factors).score == pytest.approx(scores["fix_mig"]["discrete_mig"], abs=SCORE)
    assert modularity_from_information(information) == pytest.approx(scores["fix_modularity"], abs=SCORE)


def test_explicitness_of_fixed_samples_matches() -> None:
    golden = load_golden("metrics_dislib")
    samples = [(golden.numpy(f"fix_mus_{s}").T, golden.numpy(f"fix_ys_{s}").T) for s in ("train", "test")]
    np.testing.assert_allclose(explicitness_from_codes(*samples), golden.numpy("fix_explicitness"), atol=OPTIMISED)


def test_modularity_and_explicitness_are_those_of_the_reference_library() -> None:
    expected = load_golden("metrics_dislib").config["scores"]["modularity_explicitness"]
    result = modularity(identity, dislib_table(), num_train=1000, num_test=600, draw_size=16)
    assert result.score == pytest.approx(expected["modularity_score"], abs=SCORE)
    assert result.details["explicitness_train"] == pytest.approx(expected["explicitness_score_train"], abs=OPTIMISED)
    assert result.details["explicitness"] == pytest.approx(expected["explicitness_score_test"], abs=OPTIMISED)


def test_one_code_a_factor_has_a_mig_and_modularity_of_one() -> None:
    table = perfect_table(num_dead=1)
    samples = sample_codes(identity, table, [20_000], np.random.RandomState(0), 1000, 1000, None)[0]
    assert mig_from_codes(*samples).score == pytest.approx(1, abs=PERFECT)
    information = mutual_information(discretize(samples[0]), samples[1])
    assert modularity_from_information(information[:3]) == pytest.approx(1, abs=PERFECT)
    assert modularity_from_information(information) == pytest.approx(0.75, abs=PERFECT)


def test_mig_of_a_single_code_takes_the_second_as_zero_with_a_warning() -> None:
    factors = np.arange(100)[:, None] % 4
    with pytest.warns(RuntimeWarning, match="second best is taken as 0"):
        assert mig_from_codes(factors.astype(float), factors).score == pytest.approx(1, abs=SCORE)


def test_mig_leaves_out_constant_factors_with_a_warning() -> None:
    codes = np.random.RandomState(0).randn(200, 3)
    factors = np.stack([np.arange(200) % 4, np.zeros(200, int)], axis=1)
    codes[:, 0] = factors[:, 0]
    with pytest.warns(RuntimeWarning, match=r"factors \[1\]"):
        score = mig_from_codes(codes, factors).score
    assert score == pytest.approx(mig_from_codes(codes, factors[:, :1]).score, abs=SCORE)


def test_mig_without_a_varying_factor_is_zero_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="no factor varies"):
        assert mig_from_codes(np.random.RandomState(0).randn(50, 3), np.zeros((50, 2), int)).score == 0


def test_constant_codes_have_a_mig_and_modularity_of_zero() -> None:
    factors = np.arange(60)[:, None] % np.array([[3, 4]])
    codes = np.ones((60, 3))
    assert mig_from_codes(codes, factors).score == 0
    assert modularity_from_information(mutual_information(discretize(codes), factors)) == 0


def test_explicitness_of_a_constant_factor_is_chance_with_a_warning() -> None:
    codes, factors = np.random.RandomState(0).randn(50, 3), np.zeros((50, 1), int)
    with pytest.warns(RuntimeWarning, match="chance"):
        assert explicitness_from_codes((codes, factors), (codes, factors)).tolist() == [[0.5, 0.5]]


def test_one_bin_is_an_error() -> None:
    with pytest.raises(ValueError, match="num_bins"):
        discretize(np.zeros((4, 2)), 1)
