"""Attaching to generators that no patch is for: `python generator_checks.py DIRECTORY CODE_BASE`.

CODE_BASE is eg3d, r3gan or projected-gan, DIRECTORY the folder that its scripts run in. A process of its own for each:
the code bases share module names.
"""

from __future__ import annotations

import copy
import importlib
import io
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sc_layers import attach_spatial_constriction
from sc_layers.attach import (
    attach_like,
    attachment_of,
    constriction_parameters,
    detach_spatial_constriction,
    images_and_masks,
)
from sc_layers.integrations import compat

K = 4
Z_DIM = 16
RENDERING = {
    "superresolution_module": "training.superresolution.SuperresolutionHybrid4X",
    "sr_antialias": True,
    "superresolution_noise_mode": "none",
    "c_gen_conditioning_zero": False,
    "c_scale": 1.0,
    "decoder_lr_mul": 1,
    "depth_resolution": 4,
    "depth_resolution_importance": 4,
    "ray_start": 2.25,
    "ray_end": 3.3,
    "box_warp": 1,
    "disparity_space_sampling": False,
    "clamp_mode": "softplus",
    "white_back": False,
}


@dataclass
class Case:
    """A small generator of a code base and how its page says to attach.

    Args:
        make: builds the generator.
        c: its class or camera for one sample, [1, c_dim].
        attach: arguments of `attach_spatial_constriction` besides generator and number of codes.
    """

    make: Callable[[], nn.Module]
    c: Tensor
    attach: dict[str, Any] = field(default_factory=dict)


def build(class_name: str, **options: Any) -> Any:
    module, name = class_name.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**options)


def make_eg3d() -> nn.Module:
    generator = build(
        "training.triplane.TriPlaneGenerator",
        z_dim=Z_DIM,
        c_dim=25,
        w_dim=512,  # which its upsampling network insists on
        img_resolution=256,
        img_channels=3,
        mapping_kwargs={"num_layers": 2},
        rendering_kwargs=RENDERING,
        channel_base=512,
        channel_max=16,
        num_fp16_res=0,
        sr_kwargs={"channel_base": 512, "channel_max": 16, "fused_modconv_default": "inference_only"},
    )
    generator.neural_rendering_resolution = 16
    return generator


def make_r3gan(c_dim: int = 0) -> nn.Module:
    network: nn.Module = build(
        "training.networks.Generator",
        NoiseDimension=Z_DIM,
        WidthPerStage=[16, 16, 16, 16],
        CardinalityPerStage=[4, 4, 4, 4],
        BlocksPerStage=[1, 1, 1, 1],
        ExpansionFactor=2,
        ConditionEmbeddingDimension=8 if c_dim else 0,
        FP16Stages=[],
        c_dim=c_dim,
        img_resolution=32,
    )
    return network


def make_fastgan(cond: int = 0, lite: bool = False) -> nn.Module:
    network: nn.Module = build(
        "pg_modules.networks_fastgan.Generator",
        z_dim=Z_DIM,
        c_dim=3 * cond,
        img_resolution=256,
        ngf=8,
        cond=cond,
        synthesis_kwargs={"lite": lite},
    )
    return network


def camera() -> Tensor:
    """One that looks at the middle from the front, as eg3d's data sets tell it."""
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[2, 3] = 2.7
    intrinsics = torch.tensor([[4.26, 0, 0.5], [0, 4.26, 0.5], [0, 0, 1]])
    return torch.cat([pose.flatten(), intrinsics.flatten()])[None]


def cases(code_base: str) -> dict[str, Case]:
    none, third = torch.zeros(1, 0), torch.eye(3)[1:2]
    stages = ["Model.MainLayers.1", "Model.MainLayers.2"]
    blocks = {"layers": ["synthesis.feat_16", "synthesis.feat_32"]}
    if code_base == "eg3d":
        return {"faces": Case(make_eg3d, camera(), {"resolutions": [16, 32]})}
    if code_base == "r3gan":
        return {
            name: Case(lambda c=c: make_r3gan(c.shape[1]), c, {"layers": stages, "example_inputs": inputs})  # type: ignore[misc]
            for name, c, inputs in [
                ("plain", none, (torch.zeros(1, Z_DIM), none)),
                ("by class", third, (torch.zeros(1, Z_DIM), third)),
            ]
        }
    return {
        "plain": Case(make_fastgan, none, blocks),
        "lite": Case(lambda: make_fastgan(lite=True), none, blocks),
        "by class": Case(lambda: make_fastgan(cond=1), third, blocks),
    }


def images_of(generator: nn.Module, z: Tensor, c: Tensor) -> Tensor:
    """Images, with the same noise in every call: FastGAN and eg3d's renderer draw their own."""
    torch.manual_seed(1)
    made = generator(z, c.expand(len(z), -1))
    images: Tensor = made["image"] if isinstance(made, dict) else made
    return images


def at_first_the_images_are_the_same(case: Case, generator: nn.Module) -> None:
    z = torch.randn(2, Z_DIM + K)
    narrow = z[:, :Z_DIM].contiguous()
    keys = list(generator.state_dict())
    with torch.no_grad():
        before = images_of(generator, narrow, case.c)
        attach_spatial_constriction(generator, K, **case.attach)
        assert torch.equal(images_of(generator, z, case.c), before)
        assert torch.equal(images_of(generator, narrow, case.c), before)
        detach_spatial_constriction(generator)
        assert list(generator.state_dict()) == keys
        assert torch.equal(images_of(generator, narrow, case.c), before)


def gains(generator: nn.Module) -> list[nn.Parameter]:
    return [parameter for name, parameter in generator.named_parameters() if name.endswith("mask_gain")]


def a_step_moves_the_gains(case: Case, generator: nn.Module) -> None:
    attach_spatial_constriction(generator, K, **case.attach)
    generator.train().requires_grad_(True)
    optimizer = torch.optim.Adam(constriction_parameters(generator), lr=0.1)
    (images_of(generator, torch.randn(4, Z_DIM + K), case.c) - 1).square().mean().backward()
    optimizer.step()
    generator.eval().requires_grad_(False)
    assert all(gain.abs().min() > 0 for gain in gains(generator))


def every_code_acts_and_shows_its_mask(case: Case, generator: nn.Module) -> None:
    for gain in gains(generator):
        gain.fill_(1)
    z = torch.randn(1, Z_DIM + K).repeat(1 + K, 1)
    z[1:, Z_DIM:] += 3 * torch.eye(K)
    images = images_of(generator, z, case.c)
    assert ((images[1:] - images[:1]).abs().amax((1, 2, 3)) > 1e-4).all()
    mapping = getattr(generator, "mapping", None)
    ws = z if mapping is None else mapping(z, case.c.expand(len(z), -1))
    shown, masks = images_and_masks(generator, ws, c=case.c.expand(len(z), -1))
    assert shown.shape == images.shape
    assert masks.shape == (1 + K, K, *images.shape[2:])
    assert 0 <= masks.min() < masks.max() <= 1


def weights_and_pickles_come_back(case: Case, generator: nn.Module) -> None:
    z = torch.randn(2, Z_DIM + K)
    expected = images_of(generator, z, case.c)
    fresh = case.make().eval().requires_grad_(False)
    attach_like(fresh, generator)
    fresh.load_state_dict(generator.state_dict())
    buffer = io.BytesIO()
    torch.save(generator, buffer)
    buffer.seek(0)
    for other in (fresh, copy.deepcopy(generator), torch.load(buffer, weights_only=False)):
        assert attachment_of(other).arguments() == attachment_of(generator).arguments()
        if hasattr(generator, "neural_rendering_resolution"):
            other.neural_rendering_resolution = 16
        assert torch.equal(images_of(other, z, case.c), expected)


def check(case: Case) -> None:
    torch.manual_seed(0)
    generator = case.make().eval().requires_grad_(False)
    at_first_the_images_are_the_same(case, generator)
    a_step_moves_the_gains(case, generator)
    every_code_acts_and_shows_its_mask(case, generator)
    weights_and_pickles_come_back(case, generator)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    warnings.filterwarnings("ignore")
    compat.provide_modules()
    for name, case in cases(sys.argv[2]).items():
        check(case)
        print(sys.argv[2], name, "attached, trained, shown, saved, detached")
