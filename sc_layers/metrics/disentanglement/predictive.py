"""Metrics from predicting factors by codes: DCI and SAP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ..._optional import require
from ..score import Floats, Ints, Score
from .factors import Encoder, FactorData, random_state, sample_codes, warn

Samples = tuple[Floats, Ints]


def disentanglement(importance: Floats) -> tuple[float, Floats]:
    """DCI disentanglement: D_k = 1 - H_F(P_k), weighted by each code's share of the importance.

    Args:
        importance: importance [K, F] of each code for each factor, not negative.

    Returns:
        the weighted mean, and D_k [K].

    Source: Eastwood and Williams 2018, section 2.
    """
    return _one_minus_entropy(importance)


def completeness(importance: Floats) -> tuple[float, Floats]:
    """DCI completeness: C_f = 1 - H_K(P_f), weighted by each factor's share of the importance.

    Args:
        importance: importance [K, F] of each code for each factor, not negative.

    Returns:
        the weighted mean, and C_f [F].
    """
    return _one_minus_entropy(importance.T)


# Keeps a row without any importance uniform, so that its score is 0.
_IMPORTANCE_FLOOR = 1e-11


def _one_minus_entropy(rows: Floats) -> tuple[float, Floats]:
    if rows.shape[1] < 2:
        warn("DCI compares at least two codes and two factors; a single column counts as perfectly separated")
        return 1.0, np.ones(len(rows))
    shares = rows + _IMPORTANCE_FLOOR
    shares = shares / shares.sum(axis=1, keepdims=True)
    each = 1 + (shares * np.log(shares)).sum(axis=1) / np.log(rows.shape[1])
    total = rows.sum()
    if total == 0:
        warn("no code has any importance: DCI is given as 0")
        return 0.0, each
    return float((each * rows.sum(axis=1)).sum() / total), each


def dci_from_codes(train: Samples, test: Samples, seed: int | np.random.RandomState = 0) -> Score:
    """DCI by gradient-boosted trees: disentanglement, completeness and informativeness.

    Args:
        train: representations [N, K] and factors [N, F] that the trees are fitted to.
        test: the same of other images, for informativeness.
        seed: seed of the trees.

    Returns:
        score: disentanglement; details: `completeness`, `informativeness` (test accuracy), `informativeness_train`,
        `importance` [K, F]. A factor with a single value has no importance, and is left out of informativeness.

    Source: Eastwood and Williams 2018; trees as in Locatello et al. 2019.
    """
    rng = random_state(seed)
    fits = [_fit_trees(train, test, f, rng) for f in range(train[1].shape[1])]
    importance = np.stack([fit[0] for fit in fits], axis=1)
    accuracies = [fit[1:] for fit in fits if fit[1] is not None]
    informed = np.mean(np.array(accuracies, dtype=float), axis=0) if accuracies else np.zeros(2)
    score, per_code = disentanglement(importance)
    complete, per_factor = completeness(importance)
    details = {
        "completeness": complete,
        "informativeness": float(informed[1]),
        "informativeness_train": float(informed[0]),
        "importance": importance,
        "disentanglement_per_code": per_code,
        "completeness_per_factor": per_factor,
    }
    return Score("dci", score, details)


def _fit_trees(
    train: Samples, test: Samples, factor: int, rng: np.random.RandomState
) -> tuple[Floats, float | None, float | None]:
    labels, test_labels = train[1][:, factor], test[1][:, factor]
    if len(np.unique(labels)) < 2:
        warn(f"factor {factor} takes a single value in the sample and is left out of DCI")
        return np.zeros(train[0].shape[1]), None, None
    trees = require("sklearn.ensemble", "metrics").GradientBoostingClassifier(random_state=rng)
    trees.fit(train[0], labels)
    accuracies = [float(np.mean(trees.predict(x) == y)) for x, y in ((train[0], labels), (test[0], test_labels))]
    return np.abs(trees.feature_importances_), accuracies[0], accuracies[1]


def dci(
    encoder: Encoder,
    data: FactorData,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """DCI of an encoder; see `dci_from_codes`.

    Range: 0 to 1, of all three. Better: higher. Weaknesses: importances of trees depend on their implementation, share
    a factor among codes that tell the same, and are noise for a factor that nothing tells (look at informativeness
    first). With few images the trees learn the noise of every code, and the score falls: on 3D shapes one network has
    0.47 by 1,000 images and 0.55 by 10,000. Only scores by as many images can be compared; the defaults are those by
    which scores are published.

    The trees take time in proportion to images and factor values: some minutes with 10,000 images.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_train: images that the trees are fitted to.
        num_test: further images, for informativeness.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time.

    Returns:
        As `dci_from_codes`.

    Raises:
        ValueError: a factor is continuous.

    Source: Eastwood and Williams 2018; trees as in Locatello et al. 2019.
    """
    rng = random_state(seed)
    train, test = sample_codes(encoder, data, [num_train, num_test], rng, draw_size, batch_size, device)
    return dci_from_codes(train, test, rng)


def sap_from_codes(
    train: Samples, test: Samples, continuous: bool = False, seed: int | np.random.RandomState = 0
) -> Score:
    """Separated Attribute Predictability: mean over factors of the gap between the two codes that predict it best.

    Args:
        train: representations [N, K] and factors [N, F].
        test: the same of other images; not used when `continuous`.
        continuous: R^2 of a linear regression of each factor on each code, instead of the test accuracy of a linear
            support vector machine.
        seed: seed of the support vector machines.

    Source: Kumar et al. 2018, section 3.
    """
    scores = squared_correlations(*train) if continuous else _vector_machine_scores(train, test, random_state(seed))
    if len(scores) < 2:
        warn("SAP compares two codes; with one code the second best is taken as 0")
        scores = np.concatenate([scores, np.zeros_like(scores)])
    second, best = np.sort(scores, axis=0)[-2:]
    if not len(best):
        return Score("sap", 0.0, {"scores": scores})
    return Score("sap", float((best - second).mean()), {"scores": scores})


# A code (or factor) whose variance is below this predicts nothing.
_LEAST_VARIANCE = 1e-12


def squared_correlations(codes: Floats, factors: Ints) -> Floats:
    """Squared correlation [K, F] of each of `codes` [N, K] with each of `factors` [N, F]; 0 where one is constant."""
    codes = codes - codes.mean(axis=0)
    values = factors - factors.mean(axis=0)
    covariance = codes.T @ values / len(codes)
    spread = np.outer((codes**2).mean(axis=0), (values**2).mean(axis=0))
    constant = np.logical_or.outer(codes.var(axis=0) <= _LEAST_VARIANCE, values.var(axis=0) <= _LEAST_VARIANCE)
    return np.where(constant, 0.0, covariance**2 / np.where(constant, 1.0, spread))


def _vector_machine_scores(train: Samples, test: Samples, rng: np.random.RandomState) -> Floats:
    classes = [np.unique(column) for column in train[1].T]
    varying = [f for f, values in enumerate(classes) if len(values) > 1]
    if len(varying) < len(classes):
        warn("factors with a single value in the sample are left out of SAP")
    machine = require("sklearn.svm", "metrics").LinearSVC
    scores = np.zeros((train[0].shape[1], len(varying)))
    for k in range(len(scores)):
        for column, f in enumerate(varying):
            scores[k, column] = _accuracy(machine, train, test, k, f, rng)
    return scores


def _accuracy(
    machine: Callable[..., Any],
    train: Samples,
    test: Samples,
    code: int,
    factor: int,
    rng: np.random.RandomState,
) -> float:
    model = machine(C=0.01, class_weight="balanced", random_state=rng)
    model.fit(train[0][:, [code]], train[1][:, factor])
    return float(np.mean(model.predict(test[0][:, [code]]) == test[1][:, factor]))


def sap(
    encoder: Encoder,
    data: FactorData,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    continuous: bool = False,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """SAP of an encoder; see `sap_from_codes`.

    Range: 0 to 1. Better: higher. Weaknesses: a linear predictor of one code can't tell a factor that the code shows
    in curves or in more than two classes that don't lie in a row; it says nothing of a code that stands for two
    factors.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_train: images that the predictors are fitted to.
        num_test: further images on which they are judged.
        continuous: linear regression instead of support vector machines.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time.

    Returns:
        score: the gap; details: `scores` [K, F].

    Raises:
        ValueError: a factor is continuous.

    Source: Kumar et al. 2018, section 3.
    """
    rng = random_state(seed)
    nums = [num_train] if continuous else [num_train, num_test]
    samples = sample_codes(encoder, data, nums, rng, draw_size, batch_size, device)
    return sap_from_codes(samples[0], samples[-1], continuous, rng)
