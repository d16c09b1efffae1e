"""Metrics that fix one factor and ask which code does not vary: FactorVAE and BetaVAE."""

from __future__ import annotations

import numpy as np
import torch

from ..._optional import require
from .factors import (
    Encoder,
    FactorData,
    Floats,
    Ints,
    Score,
    encode,
    random_state,
    sample_factors,
    varying_factors,
    warn,
)


def factor_vae(
    encoder: Encoder,
    data: FactorData,
    *,
    num_train: int = 800,
    num_eval: int = 400,
    num_variance: int = 10_000,
    vote_size: int = 64,
    prune_std: float = 0.1,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Score:
    """FactorVAE metric: accuracy of a majority vote from the code of least relative variance to the fixed factor.

    A vote fixes one random factor in `vote_size` images; argmin_k Var(c_k) / Var_data(c_k) is its input. Codes whose
    standard deviation over the data is below `prune_std` are left out: 0.1 as in the program of the paper.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_train: votes that make the majority table.
        num_eval: further votes on which accuracy is measured.
        num_variance: images for the variance over the data.
        vote_size: images in a vote.
        prune_std: least standard deviation of an active code.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.

    Returns:
        score: accuracy on the evaluation votes; details: `train_accuracy`, `num_active`, `votes_train` and
        `votes_eval` [F, K].

    Source: Kim and Mnih 2018, section 4.
    """
    rng = random_state(seed)
    choices = varying_factors(data)
    draws = [sample_factors(data, num_variance, rng)]
    fixed, groups = _fixed_groups(data, choices, num_train + num_eval, vote_size, rng)
    codes = encode(encoder, data, np.concatenate([*draws, *groups]), batch_size, device)
    spread = codes[:num_variance].var(axis=0, ddof=1)
    active = np.flatnonzero((np.sqrt(spread) >= prune_std) & (spread > 0))
    if not len(active) or not len(choices):
        warn("no active code or no varying factor: the FactorVAE score is given as 0")
        return Score("factor_vae", 0.0, {"train_accuracy": 0.0, "num_active": len(active)})
    if len(active) < 2:
        warn("one active code: every vote falls on it, and the FactorVAE score is that of the commonest factor")
    within = codes[num_variance:].reshape(len(fixed), vote_size, -1).var(axis=1, ddof=1)
    winners = active[np.argmin(within[:, active] / spread[active], axis=1)]
    votes = [
        _vote_table(fixed[part], winners[part], len(data.factor_sizes), codes.shape[1])
        for part in (slice(None, num_train), slice(num_train, None))
    ]
    train, accuracy = majority_accuracy(votes[0], votes[0]), majority_accuracy(votes[0], votes[1])
    details = {
        "train_accuracy": train,
        "num_active": len(active),
        "votes_train": votes[0],
        "votes_eval": votes[1],
    }
    return Score("factor_vae", accuracy, details)


def _fixed_groups(
    data: FactorData, choices: Ints, num: int, size: int, rng: np.random.RandomState
) -> tuple[Ints, list[Ints]]:
    """`num` groups of factors [size, F] in each of which one factor, named in the first result, is held."""
    fixed, groups = [], []
    for _ in range(num if len(choices) else 0):
        held = choices[rng.randint(len(choices))]
        group = sample_factors(data, size, rng)
        group[:, held] = group[0, held]
        fixed.append(held)
        groups.append(group)
    return np.array(fixed, dtype=np.int64), groups


def _vote_table(fixed: Ints, winners: Ints, num_factors: int, num_codes: int) -> Ints:
    table = np.zeros((num_factors, num_codes), dtype=np.int64)
    np.add.at(table, (fixed, winners), 1)
    return table


def majority_accuracy(votes_train: Ints, votes: Ints) -> float:
    """Share of `votes` [F, K] that the majority of `votes_train` [F, K] names rightly, code by code."""
    named = votes_train.argmax(axis=0)
    return float(votes[named, np.arange(votes.shape[1])].sum() / max(votes.sum(), 1))


def beta_vae(
    encoder: Encoder,
    data: FactorData,
    *,
    num_train: int = 1_000,
    num_eval: int = 500,
    pair_size: int = 16,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Score:
    """BetaVAE metric: accuracy of a linear classifier of the shared factor from the mean |c - c'| of pairs of images.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_train: points that the classifier learns from.
        num_eval: further points on which accuracy is measured.
        pair_size: pairs of images in a point.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.

    Returns:
        score: accuracy on the evaluation points; details: `train_accuracy`, `points_train` [num_train, K] and
        `labels_train` [num_train].

    Source: Higgins et al. 2017, section 3.
    """
    rng = random_state(seed)
    choices = varying_factors(data)
    train_factors = _shared_pairs(data, choices, num_train, pair_size, rng)
    if len(choices) < 2:
        warn("fewer than two factors vary: there is nothing to tell apart, and the BetaVAE score is given as 0")
        return Score("beta_vae", 0.0, {"train_accuracy": 0.0})
    points, labels = _points(encoder, data, train_factors, pair_size, batch_size, device)
    linear = require("sklearn.linear_model", "metrics").LogisticRegression(random_state=rng)
    model = linear.fit(points, labels)
    eval_factors = _shared_pairs(data, choices, num_eval, pair_size, rng)
    accuracy = model.score(*_points(encoder, data, eval_factors, pair_size, batch_size, device))
    details = {"train_accuracy": model.score(points, labels), "points_train": points, "labels_train": labels}
    return Score("beta_vae", float(accuracy), details)


def _shared_pairs(
    data: FactorData, choices: Ints, num: int, size: int, rng: np.random.RandomState
) -> tuple[Ints, list[Ints]]:
    """`num` times: the shared factor, and the factors [2 * size, F] of the two sides of its pairs."""
    shared, groups = [], []
    for _ in range(num if len(choices) else 0):
        held = choices[rng.randint(len(choices))]
        first, second = sample_factors(data, size, rng), sample_factors(data, size, rng)
        second[:, held] = first[:, held]
        shared.append(held)
        groups.append(np.concatenate([first, second]))
    return np.array(shared, dtype=np.int64), groups


def _points(
    encoder: Encoder,
    data: FactorData,
    drawn: tuple[Ints, list[Ints]],
    size: int,
    batch_size: int,
    device: torch.device | str | None,
) -> tuple[Floats, Ints]:
    labels, groups = drawn
    codes = encode(encoder, data, np.concatenate(groups), batch_size, device)
    sides = codes.reshape(len(labels), 2, size, -1)
    return np.abs(sides[:, 0] - sides[:, 1]).mean(axis=1), labels
