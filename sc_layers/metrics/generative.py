"""Quality of a generator's images: FID and KID.

By torchmetrics, whose formulas are given features that are computed here: those of the real images once for each data
set and network, those of the generated ones once for both metrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._optional import require
from ..images import check_images, to_uint8
from .features import FeatureCache, ImageData, make_features
from .generators import (
    SAMPLING,
    GeneratorFunction,
    Sampling,
    evaluating,
    number_of_codes,
    progress_bar,
)
from .score import Score, shortfall

STANDARD_IMAGES = 50_000
SUBSET_SIZE = 1_000  # of KID


def _as_bytes(images: Tensor) -> Tensor:
    """Images as the feature networks take them: uint8 [N, 3, H, W]."""
    images = images if images.dtype == torch.uint8 else to_uint8(images)
    return images.expand(-1, 3, -1, -1)


def _features(batches: Iterator[Tensor], network: nn.Module, device: torch.device, bar: Any) -> Tensor:
    """Features [N, D] float32 on the CPU of batches of images."""
    parts = []
    for images in batches:
        parts.append(network(_as_bytes(images).to(device)).float().cpu())
        if bar is not None:
            bar.update(len(images))
    return torch.cat(parts)


@torch.inference_mode()
def real_features(
    data: ImageData,
    num: int,
    network: nn.Module,
    sampling: Sampling = SAMPLING,
    cache: FeatureCache | None = None,
) -> Tensor:
    """Features [num, D] of real images drawn without repetition, from the cache where they are there.

    Args:
        data: real images, of `images_at(indices)`.
        num: images; at most as many as there are.
        network: images uint8 [N, 3, H, W] to features [N, D].
        sampling: seed of the choice, images a pass, device, progress; its distribution is not used.
        cache: where features are kept; None keeps none.

    Raises:
        ValueError: a damaged file of the cache.
    """
    order = np.random.RandomState(sampling.seed).permutation(len(data))[:num]
    path = None if cache is None else cache.path(data, order, network)
    found = None if cache is None or path is None else cache.load(path)
    if found is not None:
        return found
    starts = range(0, len(order), sampling.batch_size)
    batches = (data.images_at(order[start : start + sampling.batch_size]) for start in starts)
    device = sampling.device_of(network)
    with progress_bar(len(order), "real images", sampling.progress) as bar:
        features = _features(batches, network.to(device).eval(), device, bar)
    if cache is not None and path is not None:
        cache.save(path, features)
    return features


@torch.inference_mode()
def fake_features(
    generator: GeneratorFunction,
    num: int,
    network: nn.Module,
    num_codes: int | None = None,
    sampling: Sampling = SAMPLING,
) -> Tensor:
    """Features [num, D] of generated images, with the generator's own noise.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K].
        num: images.
        network: images uint8 [N, 3, H, W] to features [N, D].
        num_codes: K; None takes the generator's `num_codes`.
        sampling: distribution of the codes, seed of codes and noise, images a pass, device, progress. The caller's
            random numbers are left as they are.

    Raises:
        ValueError: images of a wrong shape or not finite.
    """
    device = sampling.device_of(generator)
    codes = sampling.codes(num, number_of_codes(generator, num_codes)).split(sampling.batch_size)
    batches = (check_images(generator(part.to(device)), part) for part in codes)
    with (
        evaluating(generator),
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        progress_bar(num, "generated images", sampling.progress) as bar,
    ):
        torch.manual_seed(sampling.seed)
        return _features(batches, network.to(device).eval(), device, bar)


class _Given(nn.Module):
    """Features that are there already, in the place of torchmetrics' feature network."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid_from_features(real: Tensor, fake: Tensor) -> float:
    """|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)) of the features of `real` [N, D] and `fake` [M, D] images.

    Raises:
        ValueError: fewer than 2 rows on a side.
    """
    _check_counts(real, fake, 2)
    metric = require("torchmetrics.image.fid", "metrics").FrechetInceptionDistance(feature=_Given(real.shape[1]))
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


def kid_from_features(
    real: Tensor, fake: Tensor, num_subsets: int = 100, subset_size: int = SUBSET_SIZE, seed: int = 0
) -> float:
    """Unbiased squared MMD of features under (x.y / D + 1)^3, mean over random subsets.

    Args:
        real: features [N, D] of real images.
        fake: features [M, D] of generated ones.
        num_subsets: subsets.
        subset_size: real and generated images in each.
        seed: integer that fixes which rows each subset draws.

    Raises:
        ValueError: fewer rows on a side than a subset has.
    """
    _check_counts(real, fake, subset_size)
    make = require("torchmetrics.image.kid", "metrics").KernelInceptionDistance
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore", UserWarning)  # that features are kept in memory
        torch.manual_seed(seed)
        metric = make(feature=_Given(real.shape[1]), subsets=num_subsets, subset_size=subset_size)
        metric.update(real, real=True)
        metric.update(fake, real=False)
        return float(metric.compute()[0])


def _check_counts(real: Tensor, fake: Tensor, least: int) -> None:
    if min(len(real), len(fake)) < least:
        raise ValueError(f"at least {least} real and generated images are needed, got {len(real)} and {len(fake)}")


def _compare(
    name: str,
    compare: Callable[[Tensor, Tensor], float],
    generator: GeneratorFunction,
    data: ImageData,
    num_codes: int | None,
    num_images: int | None,
    network: nn.Module,
    sampling: Sampling,
    cache: FeatureCache | None,
) -> Score:
    num_fakes = STANDARD_IMAGES if num_images is None else num_images
    num_reals = len(data) if num_images is None else min(num_images, len(data))
    if num_fakes < 2:
        raise ValueError(f"num_images must be at least 2, got {num_images}")
    real = real_features(data, num_reals, network.to(sampling.device_of(generator)), sampling, cache)
    fake = fake_features(generator, num_fakes, network, num_codes, sampling)
    details = {"num_reals": num_reals, "num_fakes": num_fakes}
    return Score(name, compare(real, fake), details, shortfall(num_fakes, STANDARD_IMAGES, "images"))


def fid(
    generator: GeneratorFunction,
    data: ImageData,
    num_codes: int | None = None,
    *,
    num_images: int | None = 2_000,
    features: str | nn.Module = "inception",
    cache: FeatureCache | None = None,
    sampling: Sampling = SAMPLING,
) -> Score:
    """Frechet distance of Gaussians fitted to features: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)).

    Range: from 0. Better: lower. Weaknesses: it is biased upwards, the more so the fewer images there are, so only
    numbers of equally many images, the same feature network and the same size of images can be compared; it does not
    see what the network does not, and memorised images score best.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K].
        data: real images, of `images_at(indices)`.
        num_codes: K; None takes the generator's `num_codes`.
        num_images: generated images, and as many real ones where there are so many; None is the standard: 50,000
            generated images and all real ones, as the paper does.
        features: "inception" (which FID is defined by), "efficientnet" (needs no internet) or a module; `make_features`
            takes a weights file.
        cache: where the features of the real images are kept; None keeps none.
        sampling: distribution of the codes, seed, images a pass, device, progress.

    Returns:
        score: the distance; details: `num_reals`, `num_fakes`; a note where there are fewer images than the standard's.

    Raises:
        ValueError: too few images, or generated ones of a wrong shape or not finite.
        FileNotFoundError: the feature network's weights are neither here nor can be downloaded.

    Source: Heusel et al. 2017; SPEC, metrics.
    """
    network = make_features(features)
    return _compare("fid", fid_from_features, generator, data, num_codes, num_images, network, sampling, cache)


def kid(
    generator: GeneratorFunction,
    data: ImageData,
    num_codes: int | None = None,
    *,
    num_images: int | None = 2_000,
    num_subsets: int = 100,
    subset_size: int = SUBSET_SIZE,
    features: str | nn.Module = "inception",
    cache: FeatureCache | None = None,
    sampling: Sampling = SAMPLING,
) -> Score:
    """Kernel distance: unbiased squared MMD of features under (x.y / D + 1)^3, mean over random subsets.

    Range: about 0 for equal distributions, where it can be slightly negative, and up. Better: lower. Weaknesses: it
    varies from draw to draw, which small subsets increase; it sees only what the feature network sees, and numbers of
    different networks or sizes of images can't be compared.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K].
        data: real images, of `images_at(indices)`.
        num_codes: K; None takes the generator's `num_codes`.
        num_images: see `fid`.
        num_subsets: subsets.
        subset_size: real and generated images in each.
        features: see `fid`.
        cache: see `fid`.
        sampling: distribution of the codes, seed (of the subsets too), images a pass, device, progress.

    Returns:
        As `fid`.

    Raises:
        ValueError: fewer images than a subset has, or generated ones of a wrong shape or not finite.
        FileNotFoundError: the feature network's weights are neither here nor can be downloaded.

    Source: Binkowski et al. 2018.
    """

    def compare(real: Tensor, fake: Tensor) -> float:
        return kid_from_features(real, fake, num_subsets, subset_size, sampling.seed)

    network = make_features(features)
    return _compare("kid", compare, generator, data, num_codes, num_images, network, sampling, cache)
