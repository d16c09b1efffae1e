"""The generator against the authors' program, and its interface."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from sc_layers.layers import SpatialConstriction
from sc_layers.models import Generator, network_preset
from sc_layers.models.module_list import ModuleSpec, format_module_list, module_sizes
from sc_layers.models.modules import ConvLayer
from tests.models.golden_networks import FILES, load, network, small_generator
from tests.models.module_lists import possible_module_lists
from tests.tolerances import GOLDEN_NETWORK_ABSOLUTE, SAME_FORMULA, assert_close_absolute

EVERY_KIND = (
    "[Const-6, ResConv-up-1, C_spgroup-2-2, Noise-1, Conv-up-1, C_global-1, ResConv-down-1, C_spgroup_sm-1, "
    "ResConv-id-1, Conv-down-1, Conv-up-1]"
)
MASKED = "[Const-6, ResConv-up-1, C_spgroup-2-2, Conv-id-1]"
ROUNDING = SAME_FORMULA[torch.float32]["atol"]
NOISY = "[Const-6, Noise-1, ResConv-up-1, C_spgroup-2-2, Noise-1]"


@pytest.fixture
def codes() -> Tensor:
    return torch.randn(3, 2)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", FILES)
def test_images_and_masks_match_the_authors(name: str, channels_last: bool) -> None:
    golden = load(name)
    G = network(golden, "Gs")
    if channels_last:
        G = G.to(memory_format=torch.channels_last)
    with torch.no_grad():
        images, masks = G(golden["latents"], noise_mode="const", return_masks=True)
    assert_close_absolute(images, golden["images"], GOLDEN_NETWORK_ABSOLUTE, "images")
    if "atts" in golden:
        assert_close_absolute(masks, golden["atts"][:, :, 0], GOLDEN_NETWORK_ABSOLUTE, "masks")
    else:
        assert masks.shape == (len(images), 0, *images.shape[2:])


def test_masked_codes_are_those_of_constriction() -> None:
    G = small_generator(EVERY_KIND, 8)
    assert G.num_codes == 4
    assert G.masked_codes == (0, 1, 3)


def test_stylegan_interface_gives_the_same_images(codes: Tensor) -> None:
    G = small_generator(MASKED, 8)
    assert (G.z_dim, G.w_dim, G.c_dim, G.num_ws, G.img_resolution, G.img_channels) == (2, 2, 0, 1, 8, 3)
    images = G(codes)
    assert torch.equal(G.synthesis(G.mapping(codes, None)), images)
    assert torch.equal(G(codes, torch.zeros(3, 0)), images)


def test_truncation_scales_the_codes(codes: Tensor) -> None:
    G = small_generator(MASKED, 8)
    assert torch.equal(G(codes, truncation_psi=0.5), G(codes * 0.5))


def test_random_noise_is_fresh_for_every_sample_and_call() -> None:
    G = small_generator(NOISY, 8)
    codes = torch.randn(1, 2).expand(2, 2)
    first, second = G(codes), G(codes)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_constant_noise_is_the_stored_map() -> None:
    G = small_generator(NOISY, 8)
    codes = torch.randn(1, 2).expand(2, 2)
    before = G(codes, noise_mode="const")
    assert torch.equal(before, G(codes, noise_mode="const"))
    torch.testing.assert_close(before[0], before[1])
    G.synthesis.layers[4].convs[0].noise_map.normal_()
    assert not torch.allclose(before, G(codes, noise_mode="const"))


def test_without_noise_the_images_are_those_of_strength_zero(codes: Tensor) -> None:
    G = small_generator(NOISY, 8)
    silent = G(codes, noise_mode="none")
    for name, parameter in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.zeros_(parameter)
    torch.testing.assert_close(G(codes, noise_mode="random"), silent)


@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_a_sample_does_not_depend_on_its_batch(noise_mode: Any) -> None:
    G = small_generator(EVERY_KIND, 8)
    codes = torch.randn(3, 4)
    alone = torch.cat([G(code[None], noise_mode=noise_mode) for code in codes])
    torch.testing.assert_close(G(codes, noise_mode=noise_mode), alone, **SAME_FORMULA[torch.float32])


def test_only_the_codes_of_a_module_change_its_masks_downstream() -> None:
    G = small_generator("[Const-6, ResConv-up-1, C_spgroup-2-1, Conv-up-1, C_spgroup-1-1]", 16)
    codes = torch.randn(1, 2)
    changed = codes + torch.tensor([[0.0, 1.0]])
    images, masks = G(codes, return_masks=True)
    other_images, other_masks = G(changed, return_masks=True)
    assert torch.equal(masks, other_masks)
    assert not torch.allclose(images, other_images)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"codes": torch.zeros(3, 5)}, ValueError, r"codes must have shape \(N, 2\), got \(3, 5\)"),
        ({"codes": torch.zeros(2)}, ValueError, r"codes must have shape \(N, 2\), got \(2,\)"),
        ({"codes": torch.zeros(3, 2, dtype=torch.int64)}, TypeError, "codes must be of floating point"),
        ({"codes": torch.zeros(3, 2), "c": torch.zeros(3, 1)}, ValueError, "no labels"),
        ({"codes": torch.zeros(3, 2), "noise_mode": "loud"}, ValueError, "random, const, none, got 'loud'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        small_generator(MASKED, 8)(**arguments)


def test_all_parameters_and_codes_get_gradients() -> None:
    G = small_generator(EVERY_KIND, 8)
    codes = torch.randn(3, 4, requires_grad=True)
    G(codes).square().sum().backward()
    for name, tensor in {"codes": codes, **dict(G.named_parameters())}.items():
        assert tensor.grad is not None, name
        assert tensor.grad.abs().sum() > 0, name


def test_the_generator_differentiates_twice() -> None:
    G = small_generator(EVERY_KIND, 8, fmap_max=3, fmap_min=3).double()
    codes = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def images(codes: Tensor) -> Tensor:
        return G(codes, noise_mode="const")

    assert images(codes).dtype == torch.float64
    assert torch.autograd.gradcheck(images, (codes,), fast_mode=True)
    assert torch.autograd.gradgradcheck(images, (codes,), fast_mode=True)


def test_a_path_length_penalty_reaches_the_parameters() -> None:
    G = small_generator(EVERY_KIND, 8)
    codes = torch.randn(2, 4, requires_grad=True)
    images = G(codes)
    (gradient,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), codes, create_graph=True)
    gradient.square().sum().backward()
    for name, parameter in G.named_parameters():
        assert name.endswith("to_rgb.bias") or parameter.grad is not None, name


def test_features_stay_channels_last() -> None:
    G = small_generator(EVERY_KIND, 8).to(memory_format=torch.channels_last)
    seen: list[bool] = []
    for module in G.modules():
        if isinstance(module, ConvLayer | SpatialConstriction):
            module.register_forward_hook(
                lambda m, i, y: seen.append(y.is_contiguous(memory_format=torch.channels_last))
            )
    G(torch.randn(3, 4))
    assert len(seen) == 12
    assert all(seen)


def test_bfloat16_autocast_stays_close_and_returns_float32() -> None:
    G = small_generator(EVERY_KIND, 8)
    codes = torch.randn(4, 4)
    with torch.autocast("cpu", torch.bfloat16):
        images, masks = G(codes, noise_mode="const", return_masks=True)
        images.square().mean().backward()
    exact = G(codes, noise_mode="const")
    assert images.dtype == masks.dtype == torch.float32
    assert (images - exact).square().mean().sqrt() < 0.05 * exact.std()
    assert all(parameter.grad is not None for parameter in G.parameters())


def test_the_state_dict_reads_well() -> None:
    """Saved networks depend on these names."""
    assert set(small_generator(NOISY, 8).state_dict()) == {
        "synthesis.layers.0.const",
        "synthesis.layers.1.convs.0.weight",
        "synthesis.layers.1.convs.0.bias",
        "synthesis.layers.1.convs.0.noise_strength",
        "synthesis.layers.1.convs.0.noise_map",
        "synthesis.layers.2.convs.0.weight",
        "synthesis.layers.2.convs.0.bias",
        "synthesis.layers.2.skip.weight",
        "synthesis.layers.2.skip.bias",
        "synthesis.layers.3.gate_weight_h",
        "synthesis.layers.3.gate_weight_w",
        "synthesis.layers.3.style_weight",
        "synthesis.layers.3.style_bias",
        "synthesis.layers.4.convs.0.weight",
        "synthesis.layers.4.convs.0.bias",
        "synthesis.layers.4.convs.0.noise_strength",
        "synthesis.layers.4.convs.0.noise_map",
        "synthesis.to_rgb.weight",
        "synthesis.to_rgb.bias",
    }


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda G: pickle.loads(pickle.dumps(G))])
def test_copies_give_the_same_images(clone: Any, codes: Tensor) -> None:
    G = small_generator(NOISY, 8)
    assert torch.equal(clone(G)(codes, noise_mode="const"), G(codes, noise_mode="const"))


def test_the_implementation_of_constriction_is_passed_on() -> None:
    G = Generator(network_preset("demo").generator, impl="reference")
    layers = [module for module in G.modules() if isinstance(module, SpatialConstriction)]
    assert [layer.impl for layer in layers] == ["reference"] * 2


@settings(derandomize=True, deadline=None, max_examples=25, suppress_health_check=[HealthCheck.filter_too_much])
@given(possible_module_lists)
def test_any_module_list_makes_images_and_masks_between_0_and_1(specs: tuple[ModuleSpec, ...]) -> None:
    generator = small_generator(format_module_list(specs), module_sizes(specs)[-1]).eval()
    codes = 3 * torch.randn(2, generator.num_codes)
    images, masks = generator(codes, noise_mode="const", return_masks=True)
    assert images.shape == (2, 3, generator.img_resolution, generator.img_resolution)
    assert images.isfinite().all()
    assert masks.shape == (2, len(generator.masked_codes), *images.shape[2:])
    assert masks.numel() == 0 or (masks.min() >= -ROUNDING and masks.max() <= 1 + ROUNDING)
    torch.testing.assert_close(generator(codes, noise_mode="const"), images, **SAME_FORMULA[torch.float32])
