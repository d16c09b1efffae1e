"""Codes and noise of real images: what the recogniser reads, refined by optimisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..metrics.distances import FeatureDistance
from ..metrics.generators import evaluating
from ..models.modules import NoiseConv

_LEARNING_RATE = 0.05
_LEVELS = 127.5  # of 255, for a difference of 1 in [-1, 1]


@dataclass(frozen=True)
class Encoded:
    """N images as a generator gives them back.

    Attributes:
        codes: [N, K].
        noise: maps [N, 1, H, W] by the name of the generator's buffer.
        read: images [N, C, H, W] of the codes that the recogniser read, about in [-1, 1].
        refined: images of the codes and the noise after the optimisation.
        read_error: root mean squared error of `read`, in levels of 255, [N].
        refined_error: the same of `refined`.
    """

    codes: Tensor
    noise: dict[str, Tensor]
    read: Tensor
    refined: Tensor
    read_error: Tensor
    refined_error: Tensor


def encode_images(
    generator: Any,
    recognizer: Callable[[Tensor], Tensor] | None,
    images: Tensor,
    distance: FeatureDistance,
    steps: int = 200,
) -> Encoded:
    """Find codes and noise from which a generator makes given images.

    It starts at the codes that the recogniser reads and at the generator's stored noise, and follows the distance with
    Adam, at a rate that falls to 0. Noise maps keep mean 0 and variance 1, so that they can't draw the image. Of each
    image the step with the smallest distance is kept.

    Args:
        generator: of this package.
        recognizer: reads codes [N, K] from images; None starts at codes 0.
        images: [N, C, H, W] in [-1, 1], of the size that the generator makes.
        distance: what is made small, as `metrics.make_distance` gives it.
        steps: updates; 0 keeps what was read.

    Returns:
        On the device of `images`.

    Raises:
        ValueError: images of another size.
    """
    expected = (generator.img_channels, generator.img_resolution, generator.img_resolution)
    if images.ndim != 4 or tuple(images.shape[1:]) != expected:
        raise ValueError(f"the network makes images {expected}, got {tuple(images.shape[1:])}")
    with evaluating(generator), torch.no_grad():
        codes = _read(recognizer, images, generator.num_codes)
        noise = {
            f"{name}.noise_map": module.noise_map.expand(len(images), -1, -1, -1).clone()
            for name, module in generator.named_modules()
            if isinstance(module, NoiseConv)
        }
        read = generator(codes, noise_mode="const")
    with evaluating(generator):
        codes, noise = _refined(generator, images, distance.to(images.device), steps, codes, noise)
        with torch.no_grad():
            refined = _made(generator, codes, noise)
    return Encoded(codes, noise, read, refined, _error(read, images), _error(refined, images))


def _read(recognizer: Any, images: Tensor, num_codes: int) -> Tensor:
    if recognizer is None:
        return images.new_zeros(len(images), num_codes)
    with evaluating(recognizer):
        codes: Tensor = recognizer(images)
    return codes.float()


def _made(generator: Any, codes: Tensor, noise: dict[str, Tensor]) -> Tensor:
    images: Tensor = torch.func.functional_call(generator, noise, (codes,), {"noise_mode": "const"})
    return images


def _refined(
    generator: Any, images: Tensor, distance: FeatureDistance, steps: int, codes: Tensor, noise: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    names = list(noise)
    moving = [tensor.clone().requires_grad_() for tensor in (codes, *noise.values())]
    best = [tensor.detach().clone() for tensor in moving]
    smallest = images.new_full((len(images),), float("inf"))
    optimizer = torch.optim.Adam(moving, lr=_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1))
    target = distance.features(_as_levels(images))
    for step in range(steps + 1):
        made = _made(generator, moving[0], dict(zip(names, moving[1:], strict=True)))
        distances = distance.between(distance.features(_as_levels(made)), target)
        with torch.no_grad():
            better = distances < smallest
            smallest = torch.where(better, distances, smallest)
            for kept, tensor in zip(best, moving, strict=True):
                kept[better] = tensor[better]
        if step == steps:
            break
        gradients = torch.autograd.grad(distances.sum(), moving, allow_unused=True)
        for tensor, gradient in zip(moving, gradients, strict=True):
            tensor.grad = gradient
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for tensor in moving[1:]:
                tensor.sub_(tensor.mean((2, 3), keepdim=True)).div_(tensor.std((2, 3), keepdim=True).clamp_min(1e-8))
    return best[0], dict(zip(names, best[1:], strict=True))


def _as_levels(images: Tensor) -> Tensor:
    """Images in [-1, 1] as distances take them, [N, 3, H, W] in 0..255."""
    return (images.float() * _LEVELS + _LEVELS).clamp(0, 255).expand(-1, 3, -1, -1)


def _error(made: Tensor, images: Tensor) -> Tensor:
    return (made.clamp(-1, 1) - images).square().mean((1, 2, 3)).sqrt() * _LEVELS
