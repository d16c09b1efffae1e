"""IRS and UDR: reference numbers and degenerate representations."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sc_layers.metrics.disentanglement.factors import sample_codes
from sc_layers.metrics.disentanglement.unsupervised import irs, irs_from_codes, udr, udr_from_codes
from tests.golden import load_golden
from tests.metrics.disentanglement.tables import Table, identity, perfect_table
from tests.tolerances import ROUNDING, SCORE_FLOAT32


def dislib_table() -> Table:
    golden = load_golden("metrics_dislib")
    return Table(golden.numpy("table_codes"), golden.numpy("table_factor_sizes"))


def test_irs_of_fixed_samples_matches() -> None:
    golden = load_golden("metrics_dislib")
    result = irs_from_codes(golden.numpy("fix_mus_train").T.astype(float), golden.numpy("fix_ys_train").T)
    np.testing.assert_allclose(result.details["robustness"], golden.numpy("fix_irs_matrix"), atol=SCORE_FLOAT32)
    assert result.score == pytest.approx(golden.config["scores"]["fix_irs_avg"], abs=SCORE_FLOAT32)


def test_irs_is_that_of_the_reference_library() -> None:
    expected = load_golden("metrics_dislib").config["scores"]["irs"]
    result = irs(identity, dislib_table(), num_samples=1000, draw_size=16)
    assert result.score == pytest.approx(expected["IRS"], abs=SCORE_FLOAT32)
    assert result.details["num_active"] == 10
    # The library's "num_active_dims" is the sum of the active representation, which pins the sample down.
    ((codes, _),) = sample_codes(identity, dislib_table(), [1000], np.random.RandomState(0), 16, 256, None)
    assert codes.sum() == pytest.approx(expected["num_active_dims"], rel=ROUNDING["rtol"])


def test_constant_codes_have_an_irs_of_zero_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="every code is constant"):
        assert irs_from_codes(np.ones((20, 3)), np.arange(20)[:, None] % 4).score == 0


# The library stops its lasso regressions early; ours go to the end.
@pytest.mark.parametrize(("correlation", "tolerance"), [("lasso", 2e-4), ("spearman", 1e-5)])
def test_udr_is_that_of_the_reference_library(correlation: str, tolerance: float) -> None:
    golden = load_golden("metrics_dislib")
    scores, pairs = udr_from_codes(golden.numpy("udr_points"), golden.numpy("udr_kl"), correlation)
    expected = golden.config["scores"][f"udr_{correlation}"]["model_scores"]
    np.testing.assert_allclose(scores, expected, atol=tolerance)
    np.testing.assert_allclose(pairs, golden.numpy(f"udr_{correlation}_pairwise")[..., 0], atol=tolerance)


def test_udr_of_permuted_and_negated_codes_is_high_and_of_rotated_ones_low() -> None:
    def permuted(images: torch.Tensor) -> torch.Tensor:
        return -identity(images)[:, [2, 0, 1]]

    def rotated(images: torch.Tensor) -> torch.Tensor:
        mix = torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]])
        return identity(images) @ (mix / mix.norm(dim=1, keepdim=True)).T

    table = perfect_table()
    scores = udr([identity, permuted, rotated], table, num_samples=500, correlation="spearman").details
    assert scores["pair_scores"][0, 1] > 0.8
    assert scores["pair_scores"][0, 2] < 0.6


def test_udr_with_a_dead_model_is_zero_with_a_warning() -> None:
    codes = np.random.RandomState(0).randn(2, 50, 3)
    with pytest.warns(RuntimeWarning, match="no informative code"):
        scores, _ = udr_from_codes(codes, kl=np.array([[1.0, 1, 1], [0, 0, 0]]))
    assert scores.tolist() == [0, 0]


def test_udr_needs_two_models() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        udr_from_codes(np.zeros((1, 10, 3)))


def test_udr_names_an_unknown_correlation() -> None:
    with pytest.raises(ValueError, match="'pearson'"):
        udr_from_codes(np.zeros((2, 10, 3)), correlation="pearson")
