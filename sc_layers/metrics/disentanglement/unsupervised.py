"""Metrics of a representation by itself or among others: IRS and UDR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from ..._optional import require
from ..score import Floats, Ints, Score
from .factors import Encoder, FactorData, encode, labelled, random_state, sample_codes, warn


def irs_from_codes(codes: Floats, factors: Ints, quantile: float = 0.99) -> Score:
    """Interventional Robustness Score: 1 - how far a code strays while one factor is held, relative to its range.

    Args:
        codes: representations [N, K].
        factors: factor indices [N, F].
        quantile: quantile of the deviation inside a group that counts as its greatest.

    Returns:
        score: mean over codes of the best factor's robustness, weighted by the code's range; details: `robustness`
        [K, F], `num_active` codes (those that vary; constant ones are left out).

    Source: Suter et al. 2019, section 4.
    """
    active = np.flatnonzero(codes.var(axis=0) > 0)
    if not len(active):
        warn("every code is constant: IRS is given as 0")
        return Score("irs", 0.0, {"num_active": 0})
    codes = codes[:, active]
    largest = np.abs(codes - codes.mean(axis=0)).max(axis=0)
    strays = [_mean_stray(codes, column, quantile) for column in factors.T]
    robustness = 1 - np.stack(strays, axis=1) / largest[:, None]
    score = float(np.average(robustness.max(axis=1), weights=largest))
    return Score("irs", score, {"robustness": robustness, "num_active": len(active)})


def _mean_stray(codes: Floats, labels: Ints, quantile: float) -> Floats:
    groups = [codes[labels == value] for value in np.unique(labels)]
    strays = [np.quantile(np.abs(g - g.mean(axis=0)), quantile, axis=0) for g in groups]
    return np.asarray(np.mean(strays, axis=0))


def irs(
    encoder: Encoder,
    data: FactorData,
    *,
    num_samples: int = 10_000,
    quantile: float = 0.99,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """Interventional Robustness Score of an encoder; see `irs_from_codes`.

    Range: 0 to 1. Better: higher. Weaknesses: values of a factor that few images of the sample have look robust, since
    few codes stray little, and one image alone does not stray at all; codes count by their range, so one of outliers
    outweighs the others.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_samples: images in the estimate.
        quantile: quantile of the deviation that counts as the greatest.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time.

    Returns:
        As `irs_from_codes`.

    Raises:
        ValueError: a factor is continuous.

    Source: Suter et al. 2019, section 4.
    """
    rng = random_state(seed)
    ((codes, factors),) = sample_codes(encoder, data, [num_samples], rng, draw_size, batch_size, device)
    return irs_from_codes(codes, factors, quantile)


def udr_from_codes(
    codes: Floats,
    kl: Floats | None = None,
    correlation: Literal["lasso", "spearman"] = "lasso",
    kl_threshold: float = 0.01,
) -> tuple[Floats, Floats]:
    """Unsupervised Disentanglement Ranking: a model is good if its codes match those of its fellows one to one.

    With R [K, K] the strength of the relation between the codes of model a (rows) and of model b, a column has the
    score max R^2 / sum R; the pair's score is the mean over active columns, averaged with that over active rows.

    Args:
        codes: representations [M, N, K] of the same images by M models.
        kl: mean divergence of each code from the prior [M, K]; codes at or below `kl_threshold` are uninformative.
            None takes all codes.
        correlation: lasso regression weights or Spearman's rank correlation.
        kl_threshold: in nats.

    Returns:
        score of each model [M], the median over the models that predict it, and of each pair [M, M], where row a
        predicts column b.

    Source: Duan et al. 2020, section 4.
    """
    if correlation not in ("lasso", "spearman"):
        raise ValueError(f"correlation must be 'lasso' or 'spearman', got {correlation!r}")
    num = len(codes)
    if num < 2:
        raise ValueError(f"UDR compares models with each other: at least 2 are needed, got {num}")
    active = np.ones((num, codes.shape[2]), bool) if kl is None else np.asarray(kl) > kl_threshold
    # In float32 the lasso regressions do not get to their end.
    scaled = _standardize(np.asarray(codes, dtype=np.float64)) * active[:, None]
    relate = _lasso_weights if correlation == "lasso" else _rank_correlations
    pairs = np.zeros((num, num))
    for a in range(num):
        for b in range(num):
            if a != b:
                pairs[a, b] = _one_to_one(relate(scaled[a], scaled[b]), active[a].sum(), active[b].sum())
    others = pairs.T[~np.eye(num, dtype=bool)].reshape(num, num - 1)
    return np.median(others, axis=1), pairs


def _standardize(codes: Floats) -> Floats:
    spread = codes.std(axis=1, keepdims=True)
    return np.asarray((codes - codes.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1.0))


_LASSO_ALPHA = 0.1


def _lasso_weights(first: Floats, second: Floats) -> Floats:
    # To the end: the default tolerance means different things in different versions of scikit-learn.
    lasso = require("sklearn.linear_model", "metrics").Lasso(alpha=_LASSO_ALPHA, tol=1e-8, max_iter=10_000)
    model = lasso.fit(first, second)
    return np.asarray(np.abs(model.coef_).reshape(second.shape[1], first.shape[1]).T)


def _rank_correlations(first: Floats, second: Floats) -> Floats:
    """Absolute Spearman correlations [K, K'], 0 where a code is constant."""
    rank = require("scipy.stats", "metrics").rankdata
    ranks = [_standardize(rank(codes, axis=0)[None])[0] for codes in (first, second)]
    return np.asarray(np.abs(ranks[0].T @ ranks[1]) / len(first))


def _one_to_one(relation: Floats, active_first: int, active_second: int) -> float:
    if not active_first or not active_second:
        warn("a model has no informative code: its UDR with the others is given as 0")
        return 0.0
    columns = _peak_share(relation).sum() / active_second
    rows = _peak_share(relation.T).sum() / active_first
    return float((columns + rows) / 2)


def _peak_share(relation: Floats) -> Floats:
    total = relation.sum(axis=0)
    return np.asarray(relation.max(axis=0) ** 2 / np.where(total > 0, total, 1.0))


def udr(
    encoders: Sequence[Encoder],
    data: FactorData,
    *,
    kl: Floats | None = None,
    correlation: Literal["lasso", "spearman"] = "lasso",
    num_samples: int = 1_000,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Score:
    """Unsupervised Disentanglement Ranking of several models on the same images; see `udr_from_codes`.

    Range: 0 to 1. Better: higher. Weaknesses: models that all fail in the same way agree with each other; it needs
    several models of the same settings, and depends on which codes count as informative.

    Args:
        encoders: two or more, each maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set from which images are drawn; its factors are not used otherwise.
        kl: see `udr_from_codes`.
        correlation: lasso regression weights or Spearman's rank correlation.
        num_samples: images.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through an encoder.
        device: where the encoders run; None takes the place of their parameters.

    Returns:
        score: the best model's; details: `model_scores` [M], `pair_scores` [M, M].

    Raises:
        ValueError: fewer than two encoders.

    Source: Duan et al. 2020, section 4.
    """
    source = labelled(data)
    keys = source.draw(num_samples, random_state(seed)).keys
    codes = np.stack([encode(encoder, source.images, keys, batch_size, device) for encoder in encoders])
    scores, pairs = udr_from_codes(codes, kl, correlation)
    return Score("udr", float(scores.max()), {"model_scores": scores, "pair_scores": pairs})
