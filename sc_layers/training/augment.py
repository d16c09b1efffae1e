"""Adaptive discriminator augmentation: the discriminator sees augmented images, the more the more it overfits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .._optional import require
from .processes import Processes

AUGMENTATIONS = ("none", "ada", "fixed")
ADJUST_INTERVAL = 4  # updates
_SHIFT = 0.125  # of the image's size
_SCALE = 0.2  # standard deviation of the binary logarithm
_BRIGHTNESS, _CONTRAST, _SATURATION = 0.2, 0.5, 1.0  # standard deviations, the latter two of binary logarithms


class Augmentation:
    """Random geometric changes and changes of colour of what the discriminator sees, each with one probability.

    Flips, quarter turns, shifts, scalings, rotations, and changes of brightness, contrast and saturation each act on an
    image with probability p. With "ada", p follows `r = E[sign(D(real))]`, which is near 0 for a discriminator that has
    learned nothing by heart: every 4 updates p moves towards what keeps r at its target, by as much as takes it from 0
    to 1 in so many thousand images. An image that no change acts on stays as it is, bit for bit.

    Args:
        kind: "none", "ada" or "fixed", where p stays at `probability`.
        probability: p to start with.
        target: of r.
        kimg: thousands of images in which p can go from 0 to 1.
        device: of the images.

    Raises:
        ImportError: kornia is missing, for a kind other than "none".

    Source: Karras et al., Training generative adversarial networks with limited data (2020), Sec. 3 and App. B; without
    its image-space filtering, noise, cutout, hue and wavelet transforms.
    """

    def __init__(
        self,
        kind: str = "none",
        probability: float = 0.0,
        target: float = 0.6,
        kimg: float = 500.0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.kind, self.target, self.kimg = kind, target, kimg
        self.probability = torch.tensor(float(probability), device=device)
        self._signs = torch.zeros(2, device=device)  # their sum and their number since p was adjusted
        if kind != "none":
            self._transform = require("kornia.geometry.transform", "augment")

    def __call__(self, images: Tensor) -> Tensor:
        """Augmented `images` [N, C, H, W] in [-1, 1], by PyTorch's random numbers; themselves for the kind "none"."""
        return images if self.kind == "none" else self._coloured(self._moved(images))

    def observe(self, logits: Tensor) -> None:
        """Count what the discriminator says of real images: its `logits`, of any shape."""
        if self.kind == "ada":
            signs = logits.detach().sign()
            self._signs += torch.stack([signs.sum(), signs.new_tensor(signs.numel())]).to(self._signs)

    def adjust(self, updates: int, batch: int, processes: Processes) -> None:
        """After an update, move p if it is time to.

        Args:
            updates: how many there have been.
            batch: images an update, over all processes.
            processes: those that share the training.
        """
        if self.kind != "ada" or updates % ADJUST_INTERVAL:
            return
        processes.average([self._signs])
        step = batch * ADJUST_INTERVAL / (self.kimg * 1000)
        overfitting = self._signs[0] / self._signs[1] - self.target
        self.probability.add_(overfitting.sign() * step).clamp_(0, 1)
        self._signs.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """What a training goes on from."""
        return {"probability": self.probability, "signs": self._signs}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the `state` that `state_dict` gave; p of the kind "fixed" stays as the settings have it.

        Raises:
            ValueError: it is of another shape.
        """
        for name, own in self.state_dict().items():
            stored = state.get(name)
            if not isinstance(stored, Tensor) or stored.shape != own.shape:
                raise ValueError(f"the state of the augmentation does not fit: {name}")
            if self.kind == "ada":
                own.copy_(stored)

    def _some(self, images: Tensor) -> Tensor:
        """Which of the images a change acts on, [N]."""
        return torch.rand(len(images), device=images.device) < self.probability

    def _moved(self, images: Tensor) -> Tensor:
        count, height, width = len(images), images.shape[2], images.shape[3]
        normal = torch.randn(4, count, device=images.device)
        uniform = torch.rand(4, count, device=images.device)
        some = torch.stack([self._some(images) for _ in range(6)])
        ones, zeros = torch.ones_like(normal[0]), torch.zeros_like(normal[0])
        flip = torch.where(some[0] & (uniform[0] < 0.5), -ones, ones)
        quarters = torch.where(some[1], (uniform[1] * 4).floor() * (math.pi / 2), zeros)
        scale = torch.where(some[2], torch.exp2(_SCALE * normal[0]), ones)
        stretch = torch.where(some[3], torch.exp2(_SCALE * normal[1]), ones)
        angle = torch.where(some[4], (uniform[2] * 2 - 1) * math.pi, zeros) + quarters
        cos, sin = angle.cos(), angle.sin()
        across, down = scale * stretch * flip, scale / stretch
        shift = torch.where(some[5], normal[2:], torch.zeros_like(normal[2:])) * _SHIFT
        # Around the middle: p -> R S (p - m) + m + shift.
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        row_x = torch.stack([cos * across, -sin * down], dim=1)
        row_y = torch.stack([sin * across, cos * down], dim=1)
        linear = torch.stack([row_x, row_y], dim=1)  # [N, 2, 2]
        middle = linear.new_tensor([middle_x, middle_y])
        offset = middle - linear @ middle + shift.T * linear.new_tensor([width, height])
        matrix = torch.cat([linear, offset[:, :, None]], dim=2)
        warped = self._transform.warp_affine(
            images.float(), matrix, (height, width), mode="bilinear", padding_mode="reflection", align_corners=True
        )
        return torch.where(some.any(0)[:, None, None, None], warped.to(images.dtype), images)

    def _coloured(self, images: Tensor) -> Tensor:
        some = torch.stack([self._some(images) for _ in range(3)])
        normal = torch.randn(3, len(images), device=images.device)
        ones = torch.ones_like(normal[0])

        def spread(values: Tensor) -> Tensor:
            return values[:, None, None, None].to(images.dtype)

        brightness = torch.where(some[0], _BRIGHTNESS * normal[0], 0 * ones)
        contrast = torch.where(some[1], torch.exp2(_CONTRAST * normal[1]), ones)
        saturation = torch.where(some[2], torch.exp2(_SATURATION * normal[2]), ones)
        changed = torch.lerp(images.mean(1, keepdim=True).expand_as(images), images, spread(saturation))
        changed = changed * spread(contrast) + spread(brightness)
        return torch.where(spread(some.any(0)).bool(), changed, images)
