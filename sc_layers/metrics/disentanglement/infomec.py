"""InfoMEC: modularity, explicitness and compactness in terms of information."""

from __future__ import annotations

import numpy as np
import torch

from ..._optional import require
from ..score import Floats, Ints, Score
from .factors import Encoder, FactorData, random_state, sample_codes, warn
from .information import entropy

_NEIGHBOURS = 10  # of the nearest-neighbour estimate of information
_LEAST_RANGE = 1 / 20  # of the widest code's; a code that ranges less is not active


def normalized_information(codes: Floats, factors: Ints, seed: int = 0) -> Floats:
    """NMI[f, k] = I(v_f; c_k) / H(v_f), the information by its nearest-neighbour estimate (Ross 2014).

    Args:
        codes: continuous representations [N, K].
        factors: factor indices [N, F], each of two values or more.
        seed: integer that fixes the noise which scikit-learn adds to tell equal codes apart.

    Returns:
        [F, K], not negative.
    """
    estimate = require("sklearn.feature_selection", "metrics").mutual_info_classif
    spread = codes.std(axis=0)
    scaled = (codes - codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    options = {"discrete_features": False, "n_neighbors": _NEIGHBOURS, "random_state": seed}
    rows = [[estimate(code[:, None], factor, **options)[0] for code in scaled.T] for factor in factors.T]
    return np.array(rows) / entropy(factors)[:, None]


def peak_share(information: Floats) -> float:
    """Mean over rows of max / sum of `information`, moved so that an even row has 0 and a row with one entry has 1.

    A row without any information counts as even. Of the codes' rows [K, F] this is InfoM, of the factors' [F, K] InfoC.
    """
    num = information.shape[1]
    if num < 2:
        warn("InfoM and InfoC compare at least two factors and two active codes: the score is given as 0")
        return 0.0
    totals = information.sum(axis=1)
    shares = np.where(totals > 0, information.max(axis=1) / np.where(totals > 0, totals, 1.0), 1 / num)
    return float((shares.mean() - 1 / num) / (1 - 1 / num))


def predictive_information(codes: Floats, factors: Ints) -> Floats:
    """(H_0 - H) / H_0 of each factor: H is the log loss of a logistic regression on all codes, H_0 that on none.

    Args:
        codes: representations [N, K].
        factors: factor indices [N, F], each of two values or more.

    Returns:
        [F].
    """
    spread = codes.std(axis=0)
    scaled = (codes - codes.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    losses = [[_log_loss(inputs, factor) for inputs in (scaled, np.zeros_like(scaled))] for factor in factors.T]
    given, marginal = np.array(losses).T
    return np.asarray((marginal - given) / marginal)


def _log_loss(inputs: Floats, labels: Ints) -> float:
    # Without a penalty; the classes weigh alike however many images they have.
    regression = require("sklearn.linear_model", "metrics").LogisticRegression(C=np.inf, class_weight="balanced")
    model = regression.fit(inputs, labels)
    return float(require("sklearn.metrics", "metrics").log_loss(labels, model.predict_proba(inputs)))


def infomec_from_codes(codes: Floats, factors: Ints, seed: int = 0) -> Score:
    """InfoM, InfoE and InfoC of `codes` [N, K] and factor indices `factors` [N, F], with a `seed`; see `infomec`."""
    varying = np.array([len(np.unique(column)) > 1 for column in factors.T])
    ranges = codes.max(axis=0) - codes.min(axis=0)
    active = (ranges > ranges.max() * _LEAST_RANGE) & (ranges > 0)
    if not varying.any() or not active.any():
        warn("no factor varies or no code does: InfoM, InfoE and InfoC are given as 0")
        return Score("infomec", 0.0, {"infom": 0.0, "infoe": 0.0, "infoc": 0.0, "num_active": int(active.sum())})
    if not varying.all():
        warn(f"factors {np.flatnonzero(~varying).tolist()} take a single value and are left out of InfoMEC")
    information = normalized_information(codes, factors[:, varying], seed)
    predictive = predictive_information(codes, factors[:, varying])
    modular, compact = peak_share(information[:, active].T), peak_share(information[:, active])
    details = {
        "infom": modular,
        "infoe": float(predictive.mean()),
        "infoc": compact,
        "num_active": int(active.sum()),
        "normalized_information": information,
        "explicitness_per_factor": predictive,
    }
    return Score("infomec", modular, details)


def infomec(
    encoder: Encoder,
    data: FactorData,
    *,
    num_samples: int = 10_000,
    seed: int | np.random.RandomState = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    draw_size: int = 64,
) -> Score:
    """InfoM, InfoE and InfoC of an encoder, Hsu et al. 2023.

    InfoM: how far each active code is about one factor. InfoC: how far each factor is in one active code. Both are the
    mean share that the greatest normalised information NMI[f, k] has in its column (M) or row (C), moved to 0..1.
    InfoE: how much of each factor's entropy a logistic regression on all codes explains. A code is active if it ranges
    over more than a twentieth of what the widest one does.

    Range: 0 to 1 (InfoE may fall a little below 0). Better: higher. Weaknesses: InfoE is measured on the images that
    its regression was fitted to, and only a linear one, so that few images flatter it and curved codes lose; InfoM and
    InfoC say nothing about factors that no code is about, and depend on which codes count as active.

    Args:
        encoder: maps images [B, C, H, W] in -1..1 to representations [B, K].
        data: data set with known factors.
        num_samples: images.
        seed: integer, or a `RandomState` to go on with.
        batch_size: images a pass through the encoder.
        device: where the encoder runs; None takes the place of its parameters.
        draw_size: rows of factors drawn at a time.

    Returns:
        score: InfoM; details: `infom`, `infoe`, `infoc`, `num_active`, `normalized_information` [F, K],
        `explicitness_per_factor` [F].

    Raises:
        ValueError: a factor is continuous.

    Source: Hsu et al., Disentanglement via Latent Quantization, NeurIPS 2023, section 5.
    """
    rng = random_state(seed)
    ((codes, factors),) = sample_codes(encoder, data, [num_samples], rng, draw_size, batch_size, device)
    return infomec_from_codes(codes, factors, int(rng.randint(2**31)))
