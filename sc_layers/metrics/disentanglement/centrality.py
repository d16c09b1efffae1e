"""ModelCentrality: how well a model reads the codes by which others of its kind made their images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ...models.latents import UNIFORM_BOUND, check_latents
from ..generators import device_of, evaluating
from ..score import Score
from .factors import Encoder
from .intervention import factor_vae

LEVELS = 256  # values that a code takes, equally likely: so many that none repeats often


class Model(NamedTuple):
    """What is compared.

    Attributes:
        generator: called as `generator(codes, noise_mode="const")`, codes [B, K] to images [B, C, H, W] in -1..1; tells
            K as `num_codes`.
        encoder: maps such images to representations [B, K].
    """

    generator: nn.Module
    encoder: Encoder


class GeneratedGrid:
    """The images of a generator as a data set whose factors are its codes.

    Args:
        generator: as in `Model`.
        latents: distribution of the codes, "normal" or "uniform"; each code takes its quantiles.

    Raises:
        ValueError: an unknown distribution.
    """

    def __init__(self, generator: Any, latents: str) -> None:
        check_latents(latents)
        self.factor_sizes = (LEVELS,) * generator.num_codes
        self._generator = generator
        shares = 2 * (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS - 1
        values = UNIFORM_BOUND * shares if latents == "uniform" else 2**0.5 * torch.erfinv(shares)
        self._values = values.float()

    @torch.no_grad()
    def images(self, factors: Any, /) -> Tensor:
        """Images [B, C, H, W] of rows of levels `factors` [B, K]."""
        codes = self._values[torch.as_tensor(factors)].to(device_of(self._generator))
        with evaluating(self._generator):
            images: Tensor = self._generator(codes, noise_mode="const")
        return images


def model_centrality(
    models: Sequence[Model],
    *,
    latents: str = "normal",
    num_train: int = 400,
    num_eval: int = 200,
    num_variance: int = 2_000,
    vote_size: int = 32,
    seed: int = 0,
    batch_size: int = 64,
) -> Score:
    """ModelCentrality of several models: the mean, over the others, of how well one reads the other and is read by it.

    How well a model reads another is the FactorVAE score of its encoder on images of the other's generator, whose codes
    are the factors: in a vote one code is the same in all images. A pair's score is the mean of both directions, and a
    model's the mean over its pairs; the greatest belongs to the medoid of the models.

    Range: 0 to 1. Better: higher. Weaknesses: models that all fail in the same way read each other well; each pair
    costs `num_variance + vote_size (num_train + num_eval)` images, twice.

    Args:
        models: two or more.
        latents: distribution of the codes, "normal" or "uniform".
        num_train, num_eval, num_variance, vote_size: see `factor_vae`.
        seed: the same draws for each pair.
        batch_size: images a pass.

    Returns:
        score: the greatest of a model; details: `model_scores` [M], `pair_scores` [M, M], where row a reads column b.

    Raises:
        ValueError: fewer than two models, or an unknown distribution.

    Source: Lin et al. 2020, InfoGAN-CR and ModelCentrality, section 4, with the settings of FactorVAE here.
    """
    if len(models) < 2:
        raise ValueError(f"ModelCentrality compares models with each other: at least 2 are needed, got {len(models)}")
    pairs = np.zeros((len(models), len(models)))
    for column, model in enumerate(models):
        images = GeneratedGrid(model.generator, latents)
        for row, reader in enumerate(models):
            if row != column:
                pairs[row, column] = factor_vae(
                    reader.encoder,
                    images,
                    num_train=num_train,
                    num_eval=num_eval,
                    num_variance=num_variance,
                    vote_size=vote_size,
                    seed=seed,
                    batch_size=batch_size,
                ).score
    scores = (pairs + pairs.T).sum(axis=1) / 2 / (len(models) - 1)
    return Score("model_centrality", float(scores.max()), {"model_scores": scores, "pair_scores": pairs})
