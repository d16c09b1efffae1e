"""Metrics that fix one factor and ask which code does not vary: FactorVAE and BetaVAE."""

from __future__ import annotations

import numpy as np
import torch

from ..._optional import require
from ..score import Floats, Ints, Score
from .factors import (
    Draws,
    Encoder,
    FactorData,
    LabelledSet,
    encode,
    labelled,
    random_state,
    require_discrete,
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

    Range: 0 to 1; guessing has about 1 over the number of factors. Better: higher. Weaknesses: factors may share codes
    as long as the majority goes right, and a factor spread over several codes costs nothing; the threshold `prune_std`
    supposes codes of about unit spread; rare values are held as often as their images come.

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

    Raises:
        ValueError: a factor is continuous, or one that is to be held has no two images that share a value.

    Source: Kim and Mnih 2018, section 4.
    """
    rng, source = random_state(seed), labelled(data)
    require_discrete(source)
    choices = varying_factors(source)
    overall = source.draw(num_variance, rng)
    fixed, groups = _fixed_groups(source, choices, num_train + num_eval, vote_size, rng)
    codes = encode(encoder, source.images, Draws.joined([overall, *groups]).keys, batch_size, device)
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
        _vote_table(fixed[part], winners[part], len(source.factor_sizes), codes.shape[1])
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
    data: LabelledSet, choices: Ints, num: int, size: int, rng: np.random.RandomState
) -> tuple[Ints, list[Draws]]:
    """`num` groups of `size` images in each of which one factor, named in the first result, is held."""
    fixed, groups = [], []
    for _ in range(num if len(choices) else 0):
        held = choices[rng.randint(len(choices))]
        groups.append(data.draw_group(int(held), size, rng))
        fixed.append(held)
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

    Range: 0 to 1; guessing has about 1 over the number of factors. Better: higher. Weaknesses: a linear classifier can
    separate factors that no single code stands for, so entangled codes reach 1 too; its regression depends on the scale
    of the codes.

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

    Raises:
        ValueError: a factor is continuous, or one that is to be held has no two images that share a value.

    Source: Higgins et al. 2017, section 3.
    """
    rng, source = random_state(seed), labelled(data)
    require_discrete(source)
    choices = varying_factors(source)
    train_pairs = _shared_pairs(source, choices, num_train, pair_size, rng)
    if len(choices) < 2:
        warn("fewer than two factors vary: there is nothing to tell apart, and the BetaVAE score is given as 0")
        return Score("beta_vae", 0.0, {"train_accuracy": 0.0})
    points, labels = _points(encoder, source, train_pairs, pair_size, batch_size, device)
    linear = require("sklearn.linear_model", "metrics").LogisticRegression(random_state=rng)
    model = linear.fit(points, labels)
    eval_pairs = _shared_pairs(source, choices, num_eval, pair_size, rng)
    accuracy = model.score(*_points(encoder, source, eval_pairs, pair_size, batch_size, device))
    details = {"train_accuracy": model.score(points, labels), "points_train": points, "labels_train": labels}
    return Score("beta_vae", float(accuracy), details)


def _shared_pairs(
    data: LabelledSet, choices: Ints, num: int, size: int, rng: np.random.RandomState
) -> tuple[Ints, list[Draws]]:
    """`num` times: the shared factor, and the 2 * `size` images of the two sides of its pairs."""
    shared, groups = [], []
    for _ in range(num if len(choices) else 0):
        held = choices[rng.randint(len(choices))]
        groups.append(Draws.joined(data.draw_pairs(int(held), size, rng)))
        shared.append(held)
    return np.array(shared, dtype=np.int64), groups


def _points(
    encoder: Encoder,
    data: LabelledSet,
    drawn: tuple[Ints, list[Draws]],
    size: int,
    batch_size: int,
    device: torch.device | str | None,
) -> tuple[Floats, Ints]:
    labels, groups = drawn
    codes = encode(encoder, data.images, Draws.joined(groups).keys, batch_size, device)
    sides = codes.reshape(len(labels), 2, size, -1)
    return np.abs(sides[:, 0] - sides[:, 1]).mean(axis=1), labels
