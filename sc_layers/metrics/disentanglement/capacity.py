"""DCI-ES: DCI with random forests of growing capacity, and how explicit and how small a representation is."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch

from ..._optional import require
from ..score import Floats, Ints, Score
from .factors import Encoder, FactorData, random_state, sample_codes, warn
from .predictive import Samples, completeness, disentanglement

DEPTHS = (1, 2, 3, 4, 8, 10, 12, 14, 16, 18, 20, 32)
_NUM_TREES = 100


def explicitness_of_curve(capacities: Sequence[float], losses: Floats, baseline: float) -> float:
    """E = 1 - 2 (area between the loss-capacity curve and its least loss) / ((capacity range) * baseline).

    The loss at a capacity is the least one up to it. A representation that the weakest probe uses as well as any other
    has 1; one whose loss falls along a straight line from `baseline` to 0 has 0.

    Args:
        capacities: the probes' capacities, at least two, increasing.
        losses: the loss of each probe, as many as there are capacities.
        baseline: loss of a constant guess.

    Source: Eastwood et al. 2023, section 4.1 (the least attainable loss taken as 0, as in their tables).

    >>> explicitness_of_curve([1, 2, 3], np.array([0.8, 0.4, 0.0]), 0.8)
    0.0
    """
    least_so_far = np.minimum.accumulate(losses)
    above = least_so_far - least_so_far[-1]
    area = ((above[1:] + above[:-1]) / 2 * np.diff(capacities)).sum()
    return float(1 - 2 * area / ((capacities[-1] - capacities[0]) * baseline))


def dci_es_from_codes(
    train: Samples,
    test: Samples,
    depths: Sequence[int] = DEPTHS,
    num_trees: int = _NUM_TREES,
    seed: int | np.random.RandomState = 0,
) -> Score:
    """DCI-ES of representations; see `dci_es`.

    Args:
        train: representations [N, K] and factors [N, F] that the forests are fitted to.
        test: the same of other images.
        depths: greatest depths of the trees, increasing: the capacity of the probes.
        num_trees: in each forest.
        seed: integer, or numpy's generator, that fixes the forests.

    Raises:
        ValueError: fewer than two depths, or depths that do not increase.
    """
    if len(depths) < 2 or any(b <= a for a, b in itertools.pairwise(depths)):
        raise ValueError(f"depths must be increasing, and at least two, got {list(depths)}")
    rng = random_state(seed)
    varying = [f for f, column in enumerate(train[1].T) if len(np.unique(column)) > 1]
    if len(varying) < train[1].shape[1]:
        left_out = sorted(set(range(train[1].shape[1])) - set(varying))
        warn(f"factors {left_out} take a single value in the sample and are left out of DCI-ES")
    if not varying:
        return Score("dci_es", 0.0, {"completeness": 0.0, "informativeness": 0.0, "explicitness": 0.0})
    fits = [[_fit_forest(train, test, f, depth, num_trees, rng) for f in varying] for depth in depths]
    accuracies = np.array([[accuracy for _, accuracy in row] for row in fits])  # [depths, factors]
    best = int(accuracies.mean(axis=1).argmax())
    importance = np.stack([weights for weights, _ in fits[best]], axis=1)
    baselines = [1 - 1 / len(np.unique(train[1][:, f])) for f in varying]
    explicit = [
        explicitness_of_curve(depths, 1 - accuracies[:, column], baseline) for column, baseline in enumerate(baselines)
    ]
    score, _ = disentanglement(importance)
    details = {
        "completeness": completeness(importance)[0],
        "informativeness": float(accuracies[best].mean()),
        "explicitness": float(np.mean(explicit)),
        "size": len(varying) / train[0].shape[1],
        "best_depth": depths[best],
        "explicitness_per_factor": np.array(explicit),
        "accuracies": accuracies,
        "importance": importance,
    }
    return Score("dci_es", score, details)


def _fit_forest(
    train: Samples, test: Samples, factor: int, depth: int, num_trees: int, rng: np.random.RandomState
) -> tuple[Floats, float]:
    """Importance of each code [K], and the accuracy on other images."""
    forest = require("sklearn.ensemble", "metrics").RandomForestClassifier(
        n_estimators=num_trees, max_depth=depth, random_state=rng
    )
    labels: Ints = train[1][:, factor]
    forest.fit(train[0], labels)
    return np.abs(forest.feature_importances_), float(forest.score(test[0], test[1][:, factor]))


def dci_es(
    encoder: Encoder,
    data: FactorData,
    *,
    num_train: int = 1_000,
    num_test: int = 1_000,
    depths: Sequence[int] = DEPTHS,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """DCI-ES of an encoder, Eastwood et al. 2023: D, C and I by random forests, explicitness E and size S.

    Forests of 100 trees of each depth predict each factor. E is how little capacity (depth) it takes to predict as well
    as possible, see `explicitness_of_curve`; D, C and I are those of the depth with the best mean accuracy; S is the
    number of factors over the number of codes.

    Range: 0 to 1; E can be below 0 where accuracy comes only with depth; S is above 1 with fewer codes than factors.
    Better: higher. Weaknesses: E is high too for a representation from which nothing can be predicted (look at I first)
    and depends on the family of probes and its range of capacities; D and C of forests stay well below 1 even with one
    code a factor, since each split sees only some codes, and can't be compared with those of `dci`; factors with rare
    values need more images than the default's.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_train: images that the forests are fitted to.
        num_test: further images, for accuracy.
        depths: greatest depths of the trees, increasing; the default is the authors'.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time.

    Returns:
        score: disentanglement; details: `completeness`, `informativeness` (test accuracy), `explicitness`, `size`,
        `best_depth`, `explicitness_per_factor` [F], `accuracies` [depths, F], `importance` [K, F].

    Raises:
        ValueError: a factor is continuous, or depths that do not increase.

    Source: Eastwood et al., DCI-ES, ICLR 2023.
    """
    rng = random_state(seed)
    train, test = sample_codes(encoder, data, [num_train, num_test], rng, draw_size, batch_size, device)
    return dci_es_from_codes(train, test, depths, seed=rng)
