"""DCI and SAP: reference numbers, perfect and degenerate representations."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from sc_layers.metrics.disentanglement.factors import sample_codes
from sc_layers.metrics.disentanglement.predictive import (
    completeness,
    dci,
    dci_from_codes,
    disentanglement,
    sap,
    sap_from_codes,
    squared_correlations,
)
from tests.golden import Golden, load_golden
from tests.metrics.disentanglement.tables import CellTable, Table, identity, perfect_table
from tests.tolerances import CLASSIFIER, FOREST, PERFECT, SCORE, SCORE_FLOAT32


def fixed_samples(golden: Golden, num: int | None = None) -> list[tuple[np.ndarray, np.ndarray]]:
    train = (golden.numpy("fix_mus_train").T[:num], golden.numpy("fix_ys_train").T[:num])
    return [train, (golden.numpy("fix_mus_test").T, golden.numpy("fix_ys_test").T)]


def dislib_table() -> Table:
    golden = load_golden("metrics_dislib")
    return Table(golden.numpy("table_codes"), golden.numpy("table_factor_sizes"))


@pytest.mark.parametrize(
    ("file", "key", "name"),
    [("metrics_official", "dci_importance", "dci"), ("metrics_dislib", "fix_dci_importance", "fix_dci")],
)
def test_scores_of_a_stored_importance_matrix_match(file: str, key: str, name: str) -> None:
    golden = load_golden(file)
    expected = {key.strip("_"): value for key, value in golden.config["scores"][name].items()}
    importance = golden.numpy(key)
    assert disentanglement(importance)[0] == pytest.approx(expected["disentanglement"], abs=SCORE)
    assert completeness(importance)[0] == pytest.approx(expected["completeness"], abs=SCORE)


def test_scores_by_code_and_by_factor_match() -> None:
    golden = load_golden("metrics_dislib")
    importance = golden.numpy("fix_dci_importance")
    np.testing.assert_allclose(disentanglement(importance)[1], golden.numpy("fix_dci_disent_per_code"), atol=SCORE)
    np.testing.assert_allclose(completeness(importance)[1], golden.numpy("fix_dci_compl_per_factor"), atol=SCORE)


def test_dci_draws_the_samples_of_the_papers_program() -> None:
    golden = load_golden("metrics_official")
    table = CellTable(golden.numpy("codes"), golden.numpy("factor_sizes"))
    train, test = sample_codes(identity, table, [600, 300], np.random.RandomState(123), 60, 256, None)
    for split, (codes, factors) in {"train": train, "test": test}.items():
        assert np.array_equal(codes.T, golden.numpy(f"dci_mus_{split}"))
        assert np.array_equal(factors.T, golden.numpy(f"dci_ys_{split}"))


@pytest.mark.slow
def test_dci_by_trees_is_near_that_of_the_papers_program() -> None:
    """The trees depend on the versions of scikit-learn and numpy, so this is close and not exact."""
    golden = load_golden("metrics_official")
    expected = golden.config["scores"]["dci"]
    # Two of the four factors keep this short; each factor has its own trees.
    train, test = [
        (golden.numpy(f"dci_mus_{split}").T, golden.numpy(f"dci_ys_{split}").T[:, :2]) for split in ("train", "test")
    ]
    result = dci_from_codes(train, test, seed=0)
    np.testing.assert_allclose(result.details["importance"], golden.numpy("dci_importance")[:, :2], atol=FOREST)
    assert result.details["informativeness_train"] >= expected["_train_inform"] - 0.01


def test_continuous_sap_of_fixed_samples_matches() -> None:
    golden = load_golden("metrics_dislib")
    train, test = fixed_samples(golden)
    matrix = golden.numpy("fix_sap_matrix_continuous")
    np.testing.assert_allclose(squared_correlations(*train), matrix, atol=SCORE)
    expected = golden.config["scores"]["fix_sap_continuous"]
    assert sap_from_codes(train, test, continuous=True).score == pytest.approx(expected, abs=SCORE_FLOAT32)


def test_discrete_sap_of_fixed_samples_matches() -> None:
    golden = load_golden("metrics_dislib")
    result = sap_from_codes(*fixed_samples(golden, 600))
    np.testing.assert_allclose(result.details["scores"], golden.numpy("fix_sap_matrix_discrete"), atol=CLASSIFIER)
    assert result.score == pytest.approx(golden.config["scores"]["fix_sap_discrete"], abs=CLASSIFIER)


@pytest.mark.parametrize(("continuous", "tolerance"), [(True, 1e-7), (False, 4e-3)])
def test_sap_is_that_of_the_reference_library(continuous: bool, tolerance: float) -> None:
    name = "sap_continuous" if continuous else "sap_discrete"
    config = load_golden("metrics_dislib").config
    sizes = config[name]
    result = sap(
        identity,
        dislib_table(),
        num_train=sizes["num_train"],
        num_test=sizes["num_test"],
        continuous=continuous,
        draw_size=16,
    )
    assert result.score == pytest.approx(config["scores"][name]["SAP_score"], abs=tolerance)


def test_one_code_a_factor_scores_one() -> None:
    table = perfect_table((3, 4, 5))
    result = dci(identity, table, num_train=300, num_test=200)
    assert result.score == pytest.approx(1, abs=PERFECT)
    assert result.details["completeness"] == pytest.approx(1, abs=PERFECT)
    assert result.details["informativeness"] == 1
    assert sap(identity, table, num_train=2000, num_test=500, continuous=True).score == pytest.approx(1, abs=PERFECT)


def test_dci_by_default_takes_the_images_by_which_scores_are_published() -> None:
    """By a tenth of them trees learn the noise of all codes, and a good network scores less than it should."""
    counts = {name: parameter.default for name, parameter in inspect.signature(dci).parameters.items()}
    assert (counts["num_train"], counts["num_test"]) == (10_000, 5_000)
    rng = np.random.RandomState(0)
    factors = rng.randint(4, size=(2_000, 2))
    sample = (factors + rng.randn(2_000, 2), factors)
    few, many = (dci_from_codes((sample[0][:num], sample[1][:num]), sample).score for num in (200, 2_000))
    assert many > few + 0.1


def test_a_matrix_without_importance_scores_zero_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="no code has any importance"):
        assert disentanglement(np.zeros((4, 3)))[0] == 0


def test_a_single_factor_counts_as_separated_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="single column"):
        assert disentanglement(np.ones((4, 1)))[0] == 1


def test_constant_factors_are_left_out_of_dci_and_sap_with_a_warning() -> None:
    rng = np.random.RandomState(0)
    factors = np.stack([np.arange(90) % 3, np.zeros(90, int), rng.randint(2, size=90)], axis=1)
    sample = (factors[:, [0, 2]] + 0.01 * rng.randn(90, 2), factors)
    with pytest.warns(RuntimeWarning, match="factor 1 takes a single value"):
        result = dci_from_codes(sample, sample)
    assert result.details["informativeness"] == 1
    assert result.details["importance"][:, 1].tolist() == [0, 0]
    with pytest.warns(RuntimeWarning, match="left out of SAP"):
        assert np.isfinite(sap_from_codes(sample, sample).score)


def test_constant_codes_score_zero() -> None:
    sample = (np.ones((60, 3)), np.arange(60)[:, None] % np.array([[2, 3]]))
    with pytest.warns(RuntimeWarning, match="no code has any importance"):
        assert dci_from_codes(sample, sample).score == 0
    assert sap_from_codes(sample, sample, continuous=True).score == 0


def test_sap_of_a_single_code_warns() -> None:
    factors = np.arange(60)[:, None] % np.array([[2, 3]])
    sample = (factors[:, :1].astype(float), factors)
    with pytest.warns(RuntimeWarning, match="second best is taken as 0"):
        assert 0 < sap_from_codes(sample, sample, continuous=True).score <= 1
