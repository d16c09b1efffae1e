"""FactorVAE and BetaVAE: reference numbers, perfect and degenerate representations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sc_layers.metrics.disentanglement.intervention import beta_vae, factor_vae
from tests.golden import load_golden
from tests.metrics.disentanglement.tables import CellTable, Table, identity, perfect_table
from tests.tolerances import CLASSIFIER, ROUNDING


def test_factor_vae_has_the_votes_of_the_papers_program() -> None:
    golden = load_golden("metrics_official")
    sizes, expected = golden.config["factor_vae"], golden.config["scores"]["factor_vae"]
    result = factor_vae(
        identity,
        CellTable(golden.numpy("codes"), golden.numpy("factor_sizes")),
        num_train=sizes["num_train"],
        num_eval=sizes["num_eval"],
        num_variance=sizes["num_variance_estimate"],
        vote_size=golden.config["batch_size"],
        prune_std=sizes["prune_threshold"],
        seed=123,
    )
    assert np.array_equal(result.details["votes_train"], golden.numpy("factor_vae_votes_train"))
    assert np.array_equal(result.details["votes_eval"], golden.numpy("factor_vae_votes_eval"))
    assert result.score == expected["_eval_acc"]
    assert result.details["train_accuracy"] == expected["_train_acc"]
    assert result.details["num_active"] == expected["_act_dim"]


def test_factor_vae_has_the_score_of_the_reference_library() -> None:
    golden = load_golden("metrics_dislib")
    sizes, expected = golden.config["factor_vae"], golden.config["scores"]["factor_vae"]
    result = factor_vae(
        identity,
        Table(golden.numpy("table_codes"), golden.numpy("table_factor_sizes")),
        num_train=sizes["num_train"],
        num_eval=sizes["num_eval"],
        num_variance=sizes["num_variance_estimate"],
        vote_size=golden.config["batch_size_beta_factor"],
        prune_std=sizes["prune_threshold"],
        seed=0,
    )
    assert result.score == expected["eval_accuracy"]
    assert result.details["train_accuracy"] == expected["train_accuracy"]
    # The library's "num_active_dims" counts all codes, pruned or not.
    assert result.details["votes_train"].shape[1] == expected["num_active_dims"]
    assert result.details["num_active"] == 9


def test_beta_vae_has_the_points_and_score_of_the_reference_library() -> None:
    golden = load_golden("metrics_dislib")
    expected = golden.config["scores"]["beta_vae"]
    table = Table(golden.numpy("table_codes"), golden.numpy("table_factor_sizes"))
    result = beta_vae(identity, table, num_train=1000, num_eval=500, pair_size=16, seed=0)
    points = golden.numpy("beta_vae_train_points")
    np.testing.assert_allclose(result.details["points_train"], points, atol=ROUNDING["atol"])
    assert np.array_equal(result.details["labels_train"], golden.numpy("beta_vae_train_labels"))
    assert result.score == pytest.approx(expected["eval_accuracy"], abs=CLASSIFIER)
    assert result.details["train_accuracy"] == pytest.approx(expected["train_accuracy"], abs=CLASSIFIER)


@pytest.mark.parametrize("metric", [factor_vae, beta_vae])
def test_one_code_a_factor_scores_one(metric) -> None:
    assert metric(identity, perfect_table(num_dead=2), num_train=200, num_eval=100).score == 1


def test_a_representation_of_noise_is_near_chance() -> None:
    noise = Table(np.random.RandomState(3).randn(120, 6), np.array([4, 5, 6]))
    assert factor_vae(identity, noise, num_train=300, num_eval=300).score < 0.6
    assert beta_vae(identity, noise, num_train=300, num_eval=300).score < 0.65


def test_constant_codes_score_zero_with_a_warning() -> None:
    dead = Table(np.ones((120, 4)), np.array([4, 5, 6]))
    with pytest.warns(RuntimeWarning, match="no active code"):
        assert factor_vae(identity, dead, num_train=10, num_eval=10).score == 0


def test_a_single_active_code_gives_a_defined_score_with_a_warning() -> None:
    codes = np.zeros((120, 4))
    codes[:, 2] = np.random.RandomState(0).randn(120)
    with pytest.warns(RuntimeWarning, match="one active code"):
        result = factor_vae(identity, Table(codes, np.array([4, 5, 6])), num_train=50, num_eval=50)
    assert 0 < result.score < 1
    assert result.details["votes_train"][:, [0, 1, 3]].sum() == 0


@pytest.mark.parametrize("metric", [factor_vae, beta_vae])
def test_a_factor_with_one_value_is_left_out_with_a_warning(metric) -> None:
    with pytest.warns(RuntimeWarning, match="single value"):
        assert metric(identity, perfect_table((4, 1, 6)), num_train=100, num_eval=100).score == 1


def test_beta_vae_without_two_varying_factors_is_zero_with_a_warning() -> None:
    with (
        pytest.warns(RuntimeWarning, match="fewer than two factors"),
        pytest.warns(RuntimeWarning, match="single"),
    ):
        assert beta_vae(identity, perfect_table((4, 1)), num_train=10, num_eval=10).score == 0


def test_an_encoder_that_sees_its_batch_cannot_read_the_fixed_factor_from_it() -> None:
    """Minibatch statistics of an unshuffled batch would name the fixed factor."""

    def batch_spread(images: torch.Tensor) -> torch.Tensor:
        spread = images.flatten(1).std(dim=0, keepdim=True)
        return spread + 0.3 * torch.randn(len(images), 3)

    table = perfect_table()
    assert factor_vae(batch_spread, table, num_train=300, num_eval=300, batch_size=64).score < 0.6


def test_codes_that_are_not_finite_are_an_error() -> None:
    with pytest.raises(ValueError, match="not finite"):
        factor_vae(lambda images: images.flatten(1) / 0, perfect_table(), num_train=10, num_eval=10)


def test_an_encoder_is_in_eval_mode_and_its_parts_are_put_back_in_their_own() -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Dropout(0.9))
    encoder[2].eval()  # frozen within a model that trains
    assert factor_vae(encoder, perfect_table(), num_train=200, num_eval=100).score == 1
    assert [part.training for part in encoder] == [True, True, False]


def test_an_encoder_that_returns_no_tensor_is_named() -> None:
    with pytest.raises(ValueError, match=r"returned tuple for 64 images, expected \[64, K\]"):
        factor_vae(lambda images: (images, images), perfect_table(), num_train=10, num_eval=10)


def test_an_encoder_with_a_wrong_shape_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"returned shape \(64, 3, 1, 1\)"):
        factor_vae(lambda images: images, perfect_table(), num_train=10, num_eval=10)
