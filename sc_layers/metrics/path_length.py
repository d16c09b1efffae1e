"""Smoothness of a generator: perceptual path length.

By torchmetrics, which takes any sampler of codes and any distance. (torch-fidelity draws only codes of its own
distributions, and gives numpy.percentile an argument that current numpy refuses.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._optional import require
from ..images import check_images
from ..models.latents import draw_codes
from .distances import DistanceFunction, FeatureDistance, as_feature_distance, prepare_images
from .generators import (
    SAMPLING,
    GeneratorFunction,
    Sampling,
    fixed_noise,
    number_of_codes,
    progress_bar,
)
from .score import Floats, Score, shortfall

STANDARD_PAIRS = 50_000


class _PathGenerator(nn.Module):
    """A generator as torchmetrics wants it: with `sample`, and images in 0..255."""

    def __init__(
        self, generator: GeneratorFunction, num_codes: int, latents: str, draws: torch.Generator, bar: Any
    ) -> None:
        super().__init__()
        self.generate, self.num_codes, self.latents, self.draws, self.bar = generator, num_codes, latents, draws, bar

    def sample(self, num: int) -> Tensor:
        return draw_codes(num, self.num_codes, self.latents, draws=self.draws)

    def forward(self, codes: Tensor) -> Tensor:
        if self.bar is not None:
            self.bar.update(len(codes))
        return (check_images(self.generate(codes), codes) + 1) * 127.5


class _PathDistance(nn.Module):
    """A distance between images in -1..1."""

    def __init__(self, measure: FeatureDistance) -> None:
        super().__init__()
        self.measure = measure

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        distances: Tensor = self.measure(prepare_images(first), prepare_images(second))
        return distances


def reject_tails(distances: Floats, low: float = 1, high: float = 99) -> Floats:
    """Those of `distances` within the percentiles `low` (the value below) and `high` (the value above), both included.

    Source: SPEC, PPL.
    """
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles must satisfy 0 <= low < high <= 100, got {low} and {high}")
    least, most = np.percentile(distances, low, method="lower"), np.percentile(distances, high, method="higher")
    return distances[(distances >= least) & (distances <= most)]


def ppl(
    generator: GeneratorFunction,
    num_codes: int | None = None,
    *,
    num_samples: int = 2_000,
    epsilon: float = 1e-4,
    percentiles: tuple[float, float] = (1, 99),
    distance: str | FeatureDistance | DistanceFunction = "lpips",
    sampling: Sampling = SAMPLING,
) -> Score:
    """Perceptual path length: mean of dis(G(c), G(lerp(c, c', eps))) / eps^2 over random pairs of codes, at t = 0.

    The other defaults are the paper's (`ppl2_wend`; this generator's w is its z): path end-points, no crop, and what
    lies outside the 1st and 99th percentile is left out.

    Range: from 0, in units of the distance over eps^2. Better: lower. Weaknesses: a generator whose images hardly
    change with the codes has a small one; steps of 1e-4 are near the resolution of float32, so half precision spoils
    it; numbers of different distances or distributions of codes can't be compared.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K]; noise as in `traversal_perceptual_length`.
        num_codes: K; None takes the generator's `num_codes`.
        num_samples: pairs; the standard is 50,000.
        epsilon: step.
        percentiles: lowest and highest percentile, 0 to 100; distances outside are dropped.
        distance: see `traversal_perceptual_length`.
        sampling: distribution and seed of the codes, pairs a pass, device, progress.

    Returns:
        score: the mean; details: `num_samples`, `num_kept`, `std`; a note where there are fewer pairs than the
        standard's.

    Raises:
        ValueError: settings out of range, or images of a wrong shape or not finite.
        FileNotFoundError: the distance's weights are neither here nor can be downloaded.

    Source: paper Sec. 4; SPEC, PPL.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    path_length = require("torchmetrics.functional.image", "metrics").perceptual_path_length
    where = sampling.device_of(generator)
    measure = as_feature_distance(distance).to(where).eval()
    draws = torch.Generator().manual_seed(sampling.seed)
    with fixed_noise(generator) as fixed, progress_bar(2 * num_samples, "PPL", sampling.progress) as bar:
        _, _, distances = path_length(
            _PathGenerator(fixed, number_of_codes(generator, num_codes), sampling.latents, draws, bar),
            num_samples=num_samples,
            batch_size=sampling.batch_size,
            epsilon=epsilon,
            resize=None,
            lower_discard=0.0,  # the paper's rule is applied below
            upper_discard=1.0,
            sim_net=_PathDistance(measure),
            device=where,
        )
    kept = reject_tails(distances.double().cpu().numpy(), *percentiles)
    details = {"num_samples": num_samples, "num_kept": len(kept), "std": float(kept.std())}
    return Score("ppl", float(kept.mean()), details, shortfall(num_samples, STANDARD_PAIRS, "pairs"))
