"""Attaching to, and detaching from, a generator as a whole."""

from __future__ import annotations

import copy
import functools
import pickle
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from sc_layers.attach import (
    attach_like,
    attach_spatial_constriction,
    attachment_of,
    constriction_parameters,
    detach_spatial_constriction,
)
from sc_layers.attach.constriction import ADAPTERS, INITS
from tests.attach.samples import K, attached, run, wide_z
from tests.integrations.toys import W_DIM, AdaLikeGenerator, MarginGenerator, RosinalityLikeGenerator, rosinality_images

TOYS = [
    (AdaLikeGenerator, 5, {"noise_mode": "const"}),
    (MarginGenerator, 5, {"noise_mode": "const"}),
    (RosinalityLikeGenerator, W_DIM, {"randomize_noise": False}),
]


@pytest.mark.parametrize("row", [0, 1], ids=["aligned", "not_aligned"])
@pytest.mark.parametrize(("make", "width", "options"), TOYS, ids=[make.__name__ for make, *_ in TOYS])
def test_a_single_image_is_bit_equal_attached_and_detached(
    make: Any, width: int, options: dict[str, Any], row: int
) -> None:
    generator = make().eval()
    wide = torch.randn(2, width + 3)[row : row + 1]

    def images(z: Tensor) -> Tensor:
        made = generator([z] if make is RosinalityLikeGenerator else z, **options)
        return made[0] if isinstance(made, tuple) else made

    narrow = wide[:, :width].clone()
    before = images(narrow)
    attach_spatial_constriction(generator, 3, [8, 16])
    assert torch.equal(images(wide), before)
    detach_spatial_constriction(generator)
    assert torch.equal(images(narrow), before)


def test_identity_init_keeps_the_images_bit_for_bit() -> None:
    generator = AdaLikeGenerator().eval()
    z = wide_z()
    before = run(generator, z[:, :5].contiguous())
    attach_spatial_constriction(generator, K, [8, 16])
    assert torch.equal(run(generator, z), before)


def test_identity_init_learns_from_the_first_step() -> None:
    generator = attached("identity")
    z = wide_z()
    before = run(generator, z).detach()
    run(generator, z).square().sum().backward()
    with torch.no_grad():
        for parameter in constriction_parameters(generator):
            parameter -= 0.1 * parameter.grad
    assert (run(generator, z) - before).abs().max() > 1e-3


def test_random_init_lets_every_code_act() -> None:
    generator = attached()
    z = wide_z(1)
    for code in range(K):
        moved = z.clone()
        moved[:, 5 + code] += 2
        assert (run(generator, moved) - run(generator, z)).abs().max() > 1e-4, f"code {code}"


def test_weights_can_be_given_by_functional_call() -> None:
    generator = attached()
    weights = {name: value * 1.1 for name, value in generator.state_dict().items()}
    twin = copy.deepcopy(generator)
    twin.load_state_dict(weights)
    z = wide_z()
    options = {"c": None, "noise_mode": "const"}
    assert torch.equal(torch.func.functional_call(generator, weights, (z,), options), run(twin, z))


class ConstNoise(nn.Module):
    """An attached generator as a function of z alone."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor) -> Tensor:
        return self.generator(z, None, noise_mode="const")


def test_an_attached_generator_compiles_to_one_graph_and_exports() -> None:
    generator = attached()
    z = wide_z()
    expected = run(generator, z)
    torch._dynamo.reset()
    compiled = torch.compile(ConstNoise(generator), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(z), expected)
    program = torch.export.export(ConstNoise(generator), (z,))
    torch.testing.assert_close(program.module()(z), expected)


@pytest.mark.slow
def test_an_attached_generator_is_exported_to_onnx_by_the_reference() -> None:
    pytest.importorskip("onnxscript", reason="ONNX export needs onnxscript")
    generator = attached()
    with pytest.warns(UserWarning, match="exporting to ONNX, which does not know the fused operator"):
        program = torch.onnx.export(ConstNoise(generator), (wide_z(),), dynamo=True, verbose=False)
    assert program is not None
    assert not [node for node in program.model_proto.graph.node if "sc_layers" in node.domain]


def test_a_compiled_generator_in_training_mode_learns_as_the_eager_one() -> None:
    generator = attached().train()
    z = wide_z()
    run(generator, z).square().sum().backward()
    expected = [p.grad.clone() for p in constriction_parameters(generator)]
    generator.zero_grad()
    torch._dynamo.reset()
    torch.compile(ConstNoise(generator), fullgraph=True, backend="aot_eager")(z).square().sum().backward()
    torch.testing.assert_close([p.grad for p in constriction_parameters(generator)], expected)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_copies_make_the_same_images_and_share_nothing(duplicate: Any) -> None:
    generator = attached()
    twin = duplicate(generator)
    z = wide_z()
    assert torch.equal(run(twin, z), run(generator, z))
    with torch.no_grad():
        for parameter in constriction_parameters(twin):
            parameter.zero_()
    assert not torch.equal(run(twin, z), run(generator, z))


def _attributes(generator: nn.Module) -> str:
    """Every attribute and hook of every module, but for its weights and parts."""
    plain = {
        name: {key: value for key, value in vars(module).items() if not key.startswith(("_para", "_buff", "_modul"))}
        for name, module in generator.named_modules()
    }
    return str(plain)


@pytest.mark.parametrize(
    ("make", "images"),
    [
        (AdaLikeGenerator, run),
        (functools.partial(AdaLikeGenerator, architecture="resnet"), run),
        (MarginGenerator, run),
        (RosinalityLikeGenerator, rosinality_images),
    ],
)
@settings(derandomize=True, deadline=None, max_examples=20)
@given(data=st.data(), codes=st.integers(1, 9), init=st.sampled_from(INITS))
def test_detaching_restores_everything_whatever_was_attached(
    make: Any, images: Any, data: st.DataObject, codes: int, init: str
) -> None:
    generator = make().eval()
    z = torch.randn(2, getattr(generator, "z_dim", W_DIM))
    before, attributes, weights = images(generator, z), _attributes(generator), copy.deepcopy(generator.state_dict())
    names = [site.name for adapter in ADAPTERS if adapter.matches(generator) for site in adapter.sites(generator)]
    layers = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    attach_spatial_constriction(generator, codes, layers=layers, init=init)
    assert torch.equal(images(generator, torch.cat([z, torch.randn(2, codes)], 1)), before) == (init == "identity")
    detach_spatial_constriction(generator)
    assert _attributes(generator) == attributes
    assert list(generator.state_dict()) == list(weights)
    assert all(torch.equal(value, weights[name]) for name, value in generator.state_dict().items())
    assert torch.equal(images(generator, z), before)


def test_attach_like_copies_the_structure_and_ignores_plain_networks() -> None:
    twin = AdaLikeGenerator()
    attach_like(twin, attached())
    assert attachment_of(twin).arguments() == attachment_of(attached()).arguments()
    plain = AdaLikeGenerator()
    attach_like(plain, AdaLikeGenerator())
    assert not hasattr(plain, "spatial_constriction")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_codes": 0, "resolutions": [8]}, "must be positive, got 0"),
        ({"num_codes": 2, "resolutions": [64]}, "no resolution 64 can be constricted here; there are 4, 8, 16, 32"),
        ({"num_codes": 2, "resolutions": [8, 8]}, "once"),
        ({"num_codes": 2, "resolutions": []}, "at least one"),
        ({"num_codes": 2, "layers": ["b7"]}, "no layer 'b7' can be constricted here; there are b4, b8, b16, b32"),
        ({"num_codes": 2, "resolutions": [8], "init": "zero"}, "init must be one of identity, random"),
    ],
)
def test_what_does_not_fit_is_named(options: dict[str, Any], message: str) -> None:
    generator = AdaLikeGenerator()
    with pytest.raises(ValueError, match=message):
        attach_spatial_constriction(generator, **options)
    assert not hasattr(generator, "spatial_constriction")


def test_attaching_twice_and_detaching_nothing_are_errors() -> None:
    with pytest.raises(ValueError, match="already"):
        attach_spatial_constriction(attached(), 2, [8])
    with pytest.raises(ValueError, match="has no spatial constriction"):
        detach_spatial_constriction(AdaLikeGenerator())


def test_an_unknown_module_gets_a_list_of_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"Linear is no generator of a known code base.*stylegan2-ada.*lucidrains"):
        attach_spatial_constriction(nn.Linear(2, 2), 2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_features_of_another_precision_stay_in_it(dtype: torch.dtype) -> None:
    generator = attached("identity")
    seen = []
    block = generator.synthesis.b16

    def cast(module: nn.Module, args: Any) -> Any:
        return (args[0].to(dtype), *args[1:])

    block.torgb.register_forward_pre_hook(lambda module, args: seen.append(args[0].dtype) or (args[0].float(),))
    block.conv1.weight.data = block.conv1.weight.data.to(dtype)
    block.conv1.register_forward_pre_hook(cast)
    block.conv1.affine.register_forward_hook(lambda module, args, output: output.to(dtype))
    block.conv1.noise_const = block.conv1.noise_const.to(dtype)
    block.conv1.noise_strength.data = block.conv1.noise_strength.data.to(dtype)
    generator.synthesis.b32.conv0.register_forward_pre_hook(lambda module, args: (args[0].float(), *args[1:]))
    run(generator, wide_z())
    assert seen == [dtype]
