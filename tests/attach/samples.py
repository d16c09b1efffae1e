"""Small attached generators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sc_layers.attach import ForeignSpace, OwnSpace, Space, attach_spatial_constriction
from sc_layers.models import Generator, GeneratorConfig
from tests.integrations.toys import AdaLikeGenerator, MarginGenerator, RosinalityLikeGenerator

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


SPACES = ("ours", "ada", "stylegan3", "rosinality", "attached ada", "attached rosinality")


def space_of(kind: str) -> Space:
    """One of `SPACES`, the same at every call."""
    torch.manual_seed(0)
    if kind == "ours":
        modules = "[Const-8, ResConv-up-1, C_spgroup-2-2, ResConv-up-1, C_global-4]"
        config = GeneratorConfig(module_list=modules, resolution=16, fmap_base=8, fmap_min=8, fmap_max=8)
        return OwnSpace(Generator(config).eval(), "uniform")
    makers = {
        "ada": AdaLikeGenerator,
        "stylegan3": MarginGenerator,
        "rosinality": RosinalityLikeGenerator,
    }
    generator = makers[kind.removeprefix("attached ")]().eval()
    attached = "attached" in kind
    return ForeignSpace(attach_spatial_constriction(generator, 2, [8], init="random") if attached else generator)
