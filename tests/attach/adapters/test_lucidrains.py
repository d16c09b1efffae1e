"""Against the real package `stylegan2-pytorch`, installed without what only its training needs."""

from __future__ import annotations

import copy
import importlib.util
import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sc_layers.attach import (
    attach_spatial_constriction,
    attachment_of,
    constriction_parameters,
    detach_spatial_constriction,
    masks_of,
    traverse,
)

K = 4
SIZE = 16


def _blur(x: Tensor, kernel: Tensor, normalized: bool) -> Tensor:
    weight = (kernel / kernel.sum()).expand(x.shape[1], 1, -1, -1)
    return nn.functional.conv2d(x, weight, padding=1, groups=x.shape[1])


STAND_INS: dict[str, dict[str, Any]] = {
    "aim": {},
    "fire": {},
    "einops": {"rearrange": None, "repeat": None},
    "vector_quantize_pytorch": {"VectorQuantize": None},
    "kornia": {},
    "kornia.filters": {"filter2d": _blur},
}


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported where there is no GPU; what only its training needs is stood in for."""
    if importlib.util.find_spec("stylegan2_pytorch") is None:
        pytest.skip("needs the package: pip install --no-deps stylegan2-pytorch")
    monkeypatch.setattr(nn.Module, "cuda", lambda self, device=None: self)
    for name, content in STAND_INS.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    with monkeypatch.context() as during_import:
        during_import.setattr(torch.cuda, "is_available", lambda: True)
        return importlib.import_module("stylegan2_pytorch.stylegan2_pytorch")


@pytest.fixture
def model(package: Any) -> Any:
    torch.manual_seed(0)
    return package.StyleGAN2(SIZE, latent_dim=8, style_depth=2, network_capacity=2, lr=1e-2)


def images(S: nn.Module, G: nn.Module, z: Tensor) -> Tensor:
    noise = torch.linspace(0, 1, SIZE * SIZE).view(1, SIZE, SIZE, 1).expand(len(z), -1, -1, -1)
    return G(S(z)[:, None].expand(-1, G.num_layers, -1), noise)


def attach(model: Any, init: str = "random") -> Any:
    return attach_spatial_constriction(model, K, [8, 16], init=init)


def test_identity_init_keeps_the_images_of_network_and_average(model: Any) -> None:
    z = torch.randn(2, 8)
    before = images(model.S, model.G, z), images(model.SE, model.GE, z)
    attach(model, "identity")
    wide = torch.cat([z, torch.randn(2, K)], 1)
    assert torch.equal(images(model.S, model.G, wide), before[0])
    assert torch.equal(images(model.SE, model.GE, wide), before[1])
    assert model.G.latent_dim == 8 + K


def test_codes_act_on_features_for_rgb_and_the_next_block_alike(model: Any) -> None:
    attach(model)
    z = torch.randn(1, 8 + K)
    moved = z + torch.eye(8 + K)[8]
    recorded: dict[str, Tensor] = {}
    block = model.G.blocks[1]
    block.to_rgb.register_forward_hook(lambda module, args, output: recorded.update(rgb=args[0]))
    block.register_forward_hook(lambda module, args, output: recorded.update(block=output[0]))
    assert (images(model.S, model.G, moved) - images(model.S, model.G, z)).abs().max() > 1e-5
    assert torch.equal(recorded["rgb"], recorded["block"])


def test_the_optimiser_trains_the_constriction_and_the_average_follows(model: Any) -> None:
    attach(model)
    added = constriction_parameters(model)
    before = [p.detach().clone() for p in added]
    images(model.S, model.G, torch.randn(2, 8 + K)).square().sum().backward()
    model.G_opt.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, added, strict=True))
    model.reset_parameter_averaging()
    z = torch.randn(2, 8 + K)
    assert torch.equal(images(model.S, model.G, z), images(model.SE, model.GE, z))
    model.EMA()


def test_path_length_regularisation_of_the_package_works(model: Any, package: Any) -> None:
    attach(model).train()
    ws = model.S(torch.randn(2, 8 + K))[:, None].expand(-1, model.G.num_layers, -1)
    made = model.G(ws, torch.rand(2, SIZE, SIZE, 1))
    package.calc_pl_lengths(ws, made).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.G.parameters())


def test_mixed_latents_of_the_trainer_mix_the_codes_of_the_mixed_layers(model: Any, package: Any) -> None:
    attach(model)
    first, second = torch.randn(2, 8 + K), torch.randn(2, 8 + K)

    def images_of(cut: int, late: Tensor) -> Tensor:
        parts = [(first, cut), (late, model.G.num_layers - cut)]
        ws = package.styles_def_to_tensor(package.latent_to_w(model.S, parts))
        return model.G(ws, torch.zeros(2, SIZE, SIZE, 1))

    other = second.clone()
    other[:, 8:] = 3
    last = attachment_of(model).rows[-1]
    assert torch.equal(images_of(last + 1, second), images_of(last + 1, other))
    assert not torch.equal(images_of(last, second), images_of(last, other))


def test_state_copies_and_detaching(model: Any) -> None:
    keys = list(model.state_dict())
    groups = len(model.G_opt.param_groups)
    attach(model)
    twin = copy.deepcopy(model)
    z = torch.randn(2, 8 + K)
    assert torch.equal(images(twin.S, twin.G, z), images(model.S, model.G, z))
    twin.load_state_dict(model.state_dict())
    detach_spatial_constriction(model)
    assert list(model.state_dict()) == keys
    assert len(model.G_opt.param_groups) == groups
    assert model.G.latent_dim == model.GE.latent_dim == 8


def test_masks_and_traversals_use_the_average(model: Any) -> None:
    attach(model)
    ws = model.SE(torch.randn(1, 8 + K))[:, None].expand(-1, model.G.num_layers, -1)
    assert masks_of(model, ws).shape == (1, K, SIZE, SIZE)
    assert traverse(model, points=2).shape == (K, 2, 3, SIZE, SIZE)


def test_a_generator_alone_can_be_attached(package: Any) -> None:
    generator = package.Generator(SIZE, 8, network_capacity=2)
    attach_spatial_constriction(generator, 2, [8])
    ws = torch.randn(1, generator.num_layers, 8 + 2)
    assert generator(ws, torch.rand(1, SIZE, SIZE, 1)).shape == (1, 3, SIZE, SIZE)
