"""Metrics from the mutual information between codes and factors: MIG, modularity and explicitness."""

from __future__ import annotations

import numpy as np
import torch

from ..._optional import require
from ..score import Floats, Ints, Score
from .factors import Encoder, FactorData, random_state, sample_codes, warn


def discretize(codes: Floats, num_bins: int = 20) -> Ints:
    """Bin each column of `codes` [N, K] into `num_bins` bins of equal width between its least and greatest value.

    Returns:
        bin numbers [N, K], from 1.
    """
    if num_bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {num_bins}")
    columns = [np.digitize(column, np.histogram(column, num_bins)[1][:-1]) for column in np.asarray(codes).T]
    return np.stack(columns, axis=1)


def mutual_information(codes: Ints, factors: Ints) -> Floats:
    """Mutual information in nats, I(c_k; v_f) = sum p(c, v) log(p(c, v) / (p(c) p(v))).

    Args:
        codes: discrete codes [N, K].
        factors: discrete factors [N, F].

    Returns:
        [K, F].
    """
    pairs = [[_mutual(code, factor) for factor in factors.T] for code in codes.T]
    return np.array(pairs).reshape(codes.shape[1], factors.shape[1])


def _mutual(first: Ints, second: Ints) -> float:
    _, first = np.unique(first, return_inverse=True)
    values, second = np.unique(second, return_inverse=True)
    counts = np.bincount(first * len(values) + second, minlength=(first.max() + 1) * len(values))
    joint = counts.reshape(-1, len(values)) / len(first)
    seen = joint > 0
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    return float((joint[seen] * np.log(joint[seen] / independent[seen])).sum())


def entropy(factors: Ints) -> Floats:
    """Entropy in nats of each column of the discrete `factors` [N, F]; returns [F]."""
    return np.array([_mutual(column, column) for column in factors.T])


def mig_from_codes(codes: Floats, factors: Ints, num_bins: int = 20) -> Score:
    """Mutual Information Gap: mean over factors of (I of the best code - I of the second best) / H(factor).

    Args:
        codes: representations [N, K].
        factors: factor indices [N, F].
        num_bins: bins a code is cut into.

    Source: Chen et al. 2018, section 4.1; discretised as in Locatello et al. 2019.
    """
    information = mutual_information(discretize(codes, num_bins), factors)
    entropies = entropy(factors)
    varying = entropies > 0
    details = {"mutual_information": information, "entropy": entropies}
    if not varying.any():
        warn("no factor varies in the sample: MIG is given as 0")
        return Score("mig", 0.0, details)
    if not varying.all():
        warn(f"factors {np.flatnonzero(~varying).tolist()} take a single value and are left out of MIG")
    if len(information) < 2:
        warn("MIG compares two codes; with one code the second best is taken as 0")
        information = np.concatenate([information, np.zeros_like(information)])
    second, best = np.sort(information, axis=0)[-2:]
    gaps = (best - second)[varying] / entropies[varying]
    return Score("mig", float(gaps.mean()), details | {"gaps": gaps})


def mig(
    encoder: Encoder,
    data: FactorData,
    *,
    num_samples: int = 10_000,
    num_bins: int = 20,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """Mutual Information Gap of an encoder; see `mig_from_codes`.

    Range: 0 to 1. Better: higher. Weaknesses: it says nothing of a code that stands for two factors; a factor in two
    codes has 0, however well they tell it; bins of equal width lose codes with outliers, and the estimate is biased
    upwards with few images.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_samples: images in the estimate.
        num_bins: bins a code is cut into.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time (the reference programs' batch size; only the stream depends on it).

    Returns:
        score: the gap; details: `mutual_information` [K, F], `entropy` [F], `gaps` [F].

    Raises:
        ValueError: a factor is continuous.

    Source: Chen et al. 2018, section 4.1; discretised as in Locatello et al. 2019.
    """
    rng = random_state(seed)
    ((codes, factors),) = sample_codes(encoder, data, [num_samples], rng, draw_size, batch_size, device)
    return mig_from_codes(codes, factors, num_bins)


def modularity_from_information(information: Floats) -> float:
    """Modularity: 1 - mean over codes of the squared information outside the best factor, relative to it.

    A code k with best factor f has deviation sum_{j != f} I_kj^2 / (I_kf^2 (F - 1)); a code without any information
    counts as not modular.

    Args:
        information: mutual information [K, F].

    Source: Ridgeway and Mozer 2018, section 3.
    """
    num_factors = information.shape[1]
    if num_factors < 2:
        warn("modularity compares factors; with one factor every informative code counts as modular")
        return float((information > 0).mean())
    squared = information**2
    best = squared.max(axis=1)
    informative = best > 0
    modular = np.zeros(len(squared))
    rest = squared[informative].sum(axis=1) - best[informative]
    modular[informative] = 1 - rest / (best[informative] * (num_factors - 1))
    return float(modular.mean())


def explicitness_from_codes(train: tuple[Floats, Ints], test: tuple[Floats, Ints]) -> Floats:
    """Explicitness: one-vs-rest area under the ROC curve of a logistic regression of each factor from all codes.

    Args:
        train: representations [N, K] and factors [N, F].
        test: the same of other images.

    Returns:
        [F, 2], train and test. A factor with a single value has 0.5, chance.

    Source: Ridgeway and Mozer 2018, section 3.
    """
    mean, std = train[0].mean(axis=0), train[0].std(axis=0)
    std = np.where(std > 0, std, 1.0)
    inputs = [(codes - mean) / std for codes in (train[0], test[0])]
    labels = zip(train[1].T, test[1].T, strict=True)
    return np.array([_areas(inputs, list(pair)) for pair in labels]).reshape(-1, 2)


def _areas(inputs: list[Floats], labels: list[Ints]) -> list[float]:
    if len(np.unique(labels[0])) < 2:
        warn("a factor takes a single value: its explicitness is given as 0.5, chance")
        return [0.5, 0.5]
    model = require("sklearn.linear_model", "metrics").LogisticRegression().fit(inputs[0], labels[0])
    return [_area(model, x, y) for x, y in zip(inputs, labels, strict=True)]


def _area(model: object, codes: Floats, labels: Ints) -> float:
    """Mean one-vs-rest area over the classes that the sample both has and lacks."""
    roc_auc_score = require("sklearn.metrics", "metrics").roc_auc_score
    classes, scores = model.classes_, model.predict_proba(codes)  # type: ignore[attr-defined]
    present = [i for i, value in enumerate(classes) if 0 < (labels == value).sum() < len(labels)]
    if not present:
        return 0.5
    return float(np.mean([roc_auc_score(labels == classes[i], scores[:, i]) for i in present]))


def modularity(
    encoder: Encoder,
    data: FactorData,
    *,
    num_train: int = 10_000,
    num_test: int = 5_000,
    num_bins: int = 20,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """Modularity, with explicitness beside it in the details, of an encoder.

    Range: 0 to 1. Better: higher. Weaknesses: a code counts however little it tells, so many codes of noise raise it;
    it does not ask whether a factor is in one code; information between codes of noise and factors is above 0 with few
    images.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_train: images for modularity and for fitting explicitness.
        num_test: images on which explicitness is measured.
        num_bins: bins a code is cut into.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time.

    Returns:
        score: modularity; details: `explicitness`, `explicitness_train`, `mutual_information` [K, F].

    Raises:
        ValueError: a factor is continuous.

    Source: Ridgeway and Mozer 2018, section 3.
    """
    rng = random_state(seed)
    train, test = sample_codes(encoder, data, [num_train, num_test], rng, draw_size, batch_size, device)
    information = mutual_information(discretize(train[0], num_bins), train[1])
    explicitness = explicitness_from_codes(train, test)
    details = {
        "explicitness_train": float(explicitness[:, 0].mean()),
        "explicitness": float(explicitness[:, 1].mean()),
        "mutual_information": information,
    }
    return Score("modularity", modularity_from_information(information), details)
