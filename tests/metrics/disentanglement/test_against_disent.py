"""Our scores against those of the library disent, where both compute the same thing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sc_layers.metrics.disentanglement.information import mig_from_codes
from sc_layers.metrics.disentanglement.intervention import factor_vae
from sc_layers.metrics.disentanglement.predictive import completeness, disentanglement, sap_from_codes
from tests.golden import load_golden
from tests.metrics.disentanglement.tables import Table, identity
from tests.tolerances import SCORE, VOTES

pytest.importorskip("disent.metrics")

Samples = tuple[np.ndarray, np.ndarray]


@pytest.fixture(scope="module")
def samples() -> tuple[Samples, Samples]:
    golden = load_golden("metrics_dislib")
    train, test = [(golden.numpy(f"fix_mus_{s}").T, golden.numpy(f"fix_ys_{s}").T) for s in ("train", "test")]
    return (train[0][:500], train[1][:500]), test


def test_mig_equals_disents(samples: tuple[Samples, Samples]) -> None:
    from disent.metrics import _mig

    codes, factors = samples[0]
    expected = _mig._compute_mig(codes.T, factors.T)["mig.discrete_score"]
    assert mig_from_codes(codes, factors).score == pytest.approx(expected, abs=SCORE)


@pytest.mark.parametrize(("continuous", "tolerance"), [(True, 1e-6), (False, 2e-3)])
def test_sap_equals_disents(samples: tuple[Samples, Samples], continuous: bool, tolerance: float) -> None:
    from disent.metrics import _sap

    (codes, factors), (test_codes, test_factors) = samples
    expected = _sap._compute_sap(codes.T, factors.T, test_codes.T, test_factors.T, continuous)["sap.score"]
    assert sap_from_codes(*samples, continuous=continuous).score == pytest.approx(expected, abs=tolerance)


def test_disentanglement_and_completeness_equal_disents() -> None:
    from disent.metrics import _dci

    importance = load_golden("metrics_dislib").numpy("fix_dci_importance")
    assert disentanglement(importance)[0] == pytest.approx(_dci._disentanglement(importance), abs=SCORE)
    assert completeness(importance)[0] == pytest.approx(_dci._completeness(importance), abs=SCORE)


@pytest.mark.slow
def test_factor_vae_agrees_with_disents_within_the_noise_of_the_votes() -> None:
    from disent.dataset import DisentDataset
    from disent.dataset.data import GroundTruthData
    from disent.metrics import metric_factor_vae

    class TableData(GroundTruthData):
        factor_names = ("first", "second", "third")
        factor_sizes = (4, 5, 6)
        img_shape = (1, 1, 5)

        def _get_observation(self, idx: Any) -> np.ndarray:
            return codes[idx].reshape(1, 1, 5)

    rng = np.random.RandomState(0)
    grid = np.stack(np.unravel_index(np.arange(120), (4, 5, 6)), axis=1)
    codes = (grid @ rng.randn(3, 5) + 0.7 * rng.randn(120, 5)).astype(np.float32)
    np.random.seed(0)
    theirs = metric_factor_vae(
        DisentDataset(TableData(), transform=torch.from_numpy),
        lambda images: images.flatten(1),
        batch_size=16,
        num_train=600,
        num_eval=600,
        num_variance_estimate=len(codes),  # it draws without repetition
    )["factor_vae.eval_accuracy"]
    table = Table(codes, np.array([4, 5, 6]))
    ours = factor_vae(identity, table, vote_size=16, num_train=600, num_eval=600, num_variance=1000).score
    assert 0.4 < ours < 0.95  # far from trivial
    assert ours == pytest.approx(theirs, abs=VOTES)
