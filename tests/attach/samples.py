"""Small attached generators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sc_layers.attach import attach_spatial_constriction
from tests.integrations.toys import AdaLikeGenerator

K = 4


def attached(init: str = "random", **options: Any) -> AdaLikeGenerator:
    settings = {"resolutions": [8, 16], "init": init} | options
    return attach_spatial_constriction(AdaLikeGenerator().eval(), K, **settings)


def wide_z(batch: int = 2) -> Tensor:
    return torch.randn(batch, 5 + K)


def run(generator: nn.Module, z: Tensor, **options: Any) -> Tensor:
    return generator(z, None, noise_mode="const", **options)


def images_move(make: Any, wide: Tensor, codes: int) -> list[bool]:
    """Whether each of the last `codes` entries of z moves the images."""
    before = make(wide)
    moved = []
    for code in range(codes):
        other = wide.clone()
        other[:, code - codes] += 2
        moved.append(not torch.equal(make(other), before))
    return moved
