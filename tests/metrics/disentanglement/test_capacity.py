"""DCI-ES: the authors' numbers, and what explicitness and size say."""

from __future__ import annotations

import numpy as np
import pytest

from sc_layers.metrics.disentanglement.capacity import dci_es, dci_es_from_codes, explicitness_of_curve
from sc_layers.metrics.disentanglement.predictive import completeness, disentanglement
from tests.golden import load_golden
from tests.metrics.disentanglement.tables import identity, perfect_table
from tests.tolerances import FOREST, SCORE

DEPTHS = (1, 2, 4, 8)


def test_explicitness_of_stored_accuracies_is_that_of_the_authors_program() -> None:
    golden = load_golden("metrics_information")
    accuracies, depths = golden.numpy("accuracies"), golden.config["depths"]
    sizes = [len(np.unique(column)) for column in golden.numpy("factors").T]
    each = [explicitness_of_curve(depths, 1 - accuracies[:, f], 1 - 1 / size) for f, size in enumerate(sizes)]
    np.testing.assert_allclose(each, golden.config["explicitness_per_factor"], atol=SCORE)
    importance = golden.numpy("importance")
    assert disentanglement(importance)[0] == pytest.approx(golden.config["disentanglement"], abs=SCORE)
    assert completeness(importance)[0] == pytest.approx(golden.config["completeness"], abs=SCORE)


def test_scores_of_the_same_samples_are_near_those_of_the_authors_program() -> None:
    golden = load_golden("metrics_information")
    codes, factors = golden.numpy("codes").astype(float), golden.numpy("factors").astype(int)
    train, test = (codes[:300], factors[:300]), (codes[300:], factors[300:])
    result = dci_es_from_codes(train, test, golden.config["depths"], golden.config["num_trees"])
    assert result.score == pytest.approx(golden.config["disentanglement"], abs=FOREST)
    for name in ("completeness", "informativeness", "explicitness"):
        assert result.details[name] == pytest.approx(golden.config[name], abs=FOREST), name


def test_a_loss_that_rises_with_capacity_counts_as_its_least_so_far() -> None:
    capacities = [1, 2, 3]
    rising = explicitness_of_curve(capacities, np.array([0.4, 0.1, 0.3]), 0.8)
    assert rising == explicitness_of_curve(capacities, np.array([0.4, 0.1, 0.1]), 0.8)
    assert explicitness_of_curve(capacities, np.full(3, 0.2), 0.8) == 1


def halves(codes: np.ndarray, factors: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    return (codes[:200], factors[:200]), (codes[200:], factors[200:])


def test_a_factor_that_one_threshold_shows_is_more_explicit_than_one_that_two_codes_hide() -> None:
    rng = np.random.RandomState(0)
    codes = rng.randn(400, 2)
    shown, hidden = codes[:, 0] > 0, (codes[:, 0] > 0) ^ (codes[:, 1] > 0)
    scores = [
        dci_es_from_codes(*halves(codes, factor[:, None].astype(int)), DEPTHS, 20).details for factor in (shown, hidden)
    ]
    assert min(score["informativeness"] for score in scores) > 0.9
    assert scores[0]["explicitness"] > 0.98
    assert scores[1]["explicitness"] < 0.9


def test_a_code_of_its_own_for_each_factor_is_more_disentangled_than_mixed_codes_and_size_counts_codes() -> None:
    rng = np.random.RandomState(0)
    factors = rng.randint(4, size=(400, 3))
    own = np.concatenate([factors + 0.1 * rng.randn(400, 3), rng.randn(400, 3)], axis=1)
    mixed = own @ np.linalg.qr(rng.randn(6, 6))[0]
    scores = [dci_es_from_codes(*halves(codes, factors), DEPTHS, 20) for codes in (own, mixed)]
    assert scores[0].score > scores[1].score + 0.2
    assert scores[0].details["informativeness"] > 0.95
    assert scores[0].details["size"] == 0.5


def test_an_encoder_is_measured_on_drawn_images() -> None:
    result = dci_es(identity, perfect_table((2, 3)), num_train=100, num_test=50, depths=(1, 4))
    assert result.details["informativeness"] > 0.95
    assert result.details["accuracies"].shape == (2, 2)


@pytest.mark.parametrize("depths", [(3,), (4, 2)])
def test_depths_that_do_not_increase_are_refused(depths: tuple[int, ...]) -> None:
    samples = (np.zeros((4, 2)), np.zeros((4, 2), int))
    with pytest.raises(ValueError, match="depths must be increasing"):
        dci_es_from_codes(samples, samples, depths)


def test_a_factor_with_one_value_is_left_out_with_a_warning() -> None:
    codes = np.random.RandomState(0).randn(400, 2)
    factors = np.stack([codes[:, 0] > 0, np.zeros(400)], axis=1).astype(int)
    with pytest.warns(RuntimeWarning, match=r"factors \[1\] take a single value"):
        result = dci_es_from_codes(*halves(codes, factors), (1, 2), 10)
    assert result.details["informativeness"] > 0.95
