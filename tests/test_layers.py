"""The layers against the authors' program, and what a module must bear: layouts, dtypes, double backward, copies."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from sc_layers import SoftmaxConstriction, SpatialConstriction
from tests.golden import Golden, load_golden
from tests.tolerances import GOLDEN_LAYER_RELATIVE, SAME_FORMULA, assert_close_to_largest

GROUP_CASES = [f"sc_group_case{i}" for i in range(1, 6)]
SOFTMAX_CASES = ["sc_group_softmax_case1", "sc_group_softmax_case2"]


def _scope(golden: Golden) -> str:
    return next(key for key in golden.group("var/") if "Att_spatial" in key).rsplit("/Att_spatial", 1)[0]


def _layer_from_golden(golden: Golden) -> SpatialConstriction | SoftmaxConstriction:
    """The layer of a golden case with the authors' variables, whose layouts are described in the data's README."""
    config, variables, scope = golden.config, golden.group("var/"), _scope(golden)
    channels, codes, size = config["C"], config["n_latents"], config["H"]
    layer: SpatialConstriction | SoftmaxConstriction
    weight = torch.from_numpy(variables[f"{scope}/Att_spatial/weight"])
    if config["kind"] == "group":
        layer = SpatialConstriction(channels, size, codes, config["n_subs"])
        gates = weight.T.unflatten(0, (codes, config["n_subs"], 4, size))
        layer.gate_weight_h.data.copy_(gates[:, :, :2])
        layer.gate_weight_w.data.copy_(gates[:, :, 2:])
    else:
        layer = SoftmaxConstriction(channels, size, codes)
        layer.mask_weight.data.copy_(weight.permute(3, 2, 0, 1))
    for k in range(codes):
        style = f"{scope}/Att_apply/style_mod-{k}/StyleMod"
        layer.style_weight.data[k] = torch.from_numpy(variables[f"{style}/weight"]).view(2, channels)
        layer.style_bias.data[k] = torch.from_numpy(variables[f"{style}/bias"]).view(2, channels)
    return layer


def _in_tf_layout(layer: torch.nn.Module, grads: dict[str, torch.Tensor], scope: str) -> dict[str, torch.Tensor]:
    """Gradients of a layer's parameters under the authors' names and in their layouts."""
    if isinstance(layer, SpatialConstriction):
        gates = torch.cat([grads["gate_weight_h"], grads["gate_weight_w"]], dim=2)
        result = {f"{scope}/Att_spatial/weight": gates.flatten(0, 3).T}
    else:
        result = {f"{scope}/Att_spatial/weight": grads["mask_weight"].permute(2, 3, 1, 0)}
    for k in range(layer.num_codes):
        style = f"{scope}/Att_apply/style_mod-{k}/StyleMod"
        result[f"{style}/weight"] = grads["style_weight"][k].reshape(1, -1)
        result[f"{style}/bias"] = grads["style_bias"][k].reshape(-1)
    return result


def _gradients(loss: torch.Tensor, layer: torch.nn.Module, inputs: dict[str, torch.Tensor], create_graph: bool):
    named = inputs | dict(layer.named_parameters())
    grads = torch.autograd.grad(
        loss, list(named.values()), create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return dict(zip(named, grads, strict=True))


@pytest.mark.parametrize("case", GROUP_CASES + SOFTMAX_CASES)
def test_layer_matches_authors_program(case: str) -> None:
    golden = load_golden(case)
    layer = _layer_from_golden(golden)
    start = golden.config["start_idx"]
    inputs = {"x": golden["x"].requires_grad_(), "latents": golden["latents"].requires_grad_()}
    codes = inputs["latents"][:, start : start + layer.num_codes]

    y, masks = layer(inputs["x"], codes, return_masks=True)
    assert_close_to_largest(masks, golden["atts_pre"].squeeze(2), GOLDEN_LAYER_RELATIVE, "masks")
    assert_close_to_largest(y, golden["out"], GOLDEN_LAYER_RELATIVE, "output")

    first = _gradients((y * golden["R"]).sum(), layer, inputs, create_graph=True)
    second = _gradients(first["latents"].square().sum(), layer, inputs, create_graph=False)
    for order, grads in (("grad", first), ("grad2", second)):
        for name in inputs:
            assert_close_to_largest(grads[name], golden[f"{order}/{name}"], GOLDEN_LAYER_RELATIVE, f"{order}/{name}")
        for name, grad in _in_tf_layout(layer, grads, _scope(golden)).items():
            expected = golden[f"{order}/var/{name}"]
            assert_close_to_largest(grad, expected, GOLDEN_LAYER_RELATIVE, f"{order}/{name}")


def test_one_code_is_the_papers_formula() -> None:
    layer = SpatialConstriction(6, (5, 7), num_codes=1, num_rects=2).double()
    x, codes = torch.randn(3, 6, 5, 7).double(), torch.randn(3, 1).double()
    y, masks = layer(x, codes, return_masks=True)
    scale, bias = layer.styles(codes)
    normalised = torch.nn.functional.instance_norm(x, eps=1e-8)
    styled = scale[:, 0, :, None, None] * normalised + bias[:, 0, :, None, None]
    torch.testing.assert_close(y, x * (1 - masks) + styled * masks, **SAME_FORMULA[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_output_keeps_dtype_and_layout(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    layer = SpatialConstriction(4, (6, 3), num_codes=2)
    x = torch.randn(2, 4, 6, 3).to(dtype).contiguous(memory_format=memory_format)
    y = layer(x, torch.randn(2, 2))
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=memory_format)
    expected = layer(x.float().contiguous(), torch.zeros(2, 2)).shape
    assert y.shape == expected


def test_zero_mask_gain_is_the_identity_and_learns() -> None:
    layer = SpatialConstriction(4, 8, num_codes=3, mask_gain=0.0)
    x = torch.randn(2, 4, 8, 8)
    y = layer(x, torch.randn(2, 3))
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert layer.mask_gain.grad is not None
    assert (layer.mask_gain.grad != 0).all()


def test_mask_gain_scales_the_masks() -> None:
    layer = SpatialConstriction(4, 8, num_codes=2, mask_gain=0.5)
    x, codes = torch.randn(2, 4, 8, 8), torch.randn(2, 2)
    _, masks = layer(x, codes, return_masks=True)
    layer.mask_gain.data.fill_(1.0)
    _, full = layer(x, codes, return_masks=True)
    torch.testing.assert_close(masks, full / 2)


def test_masks_are_differentiable() -> None:
    layer = SpatialConstriction(4, 8, num_codes=2)
    x = torch.randn(2, 4, 8, 8, requires_grad=True)
    _, masks = layer(x, torch.randn(2, 2), return_masks=True)
    masks.square().sum().backward()
    assert x.grad is not None
    assert layer.gate_weight_h.grad is not None
    assert layer.gate_weight_h.grad.abs().max() > 0


@pytest.mark.parametrize("layer_type", [SpatialConstriction, SoftmaxConstriction])
def test_layer_survives_copy_pickle_and_state_dict(layer_type: type) -> None:
    layer = layer_type(4, 8, num_codes=2)
    x, codes = torch.randn(2, 4, 8, 8), torch.randn(2, 2)
    expected = layer(x, codes)
    assert torch.equal(copy.deepcopy(layer)(x, codes), expected)
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x, codes), expected)
    fresh = layer_type(4, 8, num_codes=2)
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x, codes), expected)


def test_state_dict_names_say_what_they_are() -> None:
    layer = SpatialConstriction(4, 8, num_codes=2, mask_gain=0.0)
    assert list(layer.state_dict()) == ["style_weight", "style_bias", "gate_weight_h", "gate_weight_w", "mask_gain"]


def test_autocast_leaves_the_gates_in_float32() -> None:
    layer = SpatialConstriction(64, 16, num_codes=2)
    x, codes = torch.randn(2, 64, 16, 16), torch.randn(2, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, masks = layer(x, codes, return_masks=True)
    expected, expected_masks = layer(x, codes, return_masks=True)
    assert masks.dtype == torch.float32
    torch.testing.assert_close(masks, expected_masks)
    torch.testing.assert_close(y, expected)


def test_gradgradcheck() -> None:
    layer = SpatialConstriction(3, (4, 3), num_codes=2, num_rects=2, mask_gain=0.7).double()
    x = torch.randn(2, 3, 4, 3, dtype=torch.float64, requires_grad=True)
    codes = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x, codes))
    assert torch.autograd.gradgradcheck(layer, (x, codes))


@pytest.mark.parametrize("layer_type", [SpatialConstriction, SoftmaxConstriction])
@pytest.mark.parametrize(
    ("x_shape", "codes_shape", "message"),
    [
        ((2, 5, 8, 8), (2, 2), r"features \[N, 4, 8, 8\], got shape \(2, 5, 8, 8\)"),
        ((4, 8, 8), (2, 2), r"got shape \(4, 8, 8\)"),
        ((2, 4, 8, 9), (2, 2), r"got shape \(2, 4, 8, 9\)"),
        ((2, 4, 8, 8), (2, 3), r"codes must have shape \(2, 2\).*got \(2, 3\)"),
        ((2, 4, 8, 8), (1, 2), r"codes must have shape \(2, 2\).*got \(1, 2\)"),
    ],
)
def test_wrong_shapes_are_named(layer_type, x_shape, codes_shape, message) -> None:
    with pytest.raises(ValueError, match=message):
        layer_type(4, 8, num_codes=2)(torch.randn(x_shape), torch.randn(codes_shape))


def test_another_device_is_refused() -> None:
    x, codes = torch.randn(2, 4, 8, 8), torch.randn(2, 2)
    layer = SpatialConstriction(4, 8, num_codes=2)
    for arguments in ((x.to("meta"), codes), (x, codes.to("meta")), (x.to("meta"), codes.to("meta"))):
        with pytest.raises(ValueError, match=r"must be on one device, got .*meta"):
            layer(*arguments)


def test_integer_features_are_refused() -> None:
    with pytest.raises(TypeError, match=r"floating point, got torch.int64"):
        SpatialConstriction(4, 8)(torch.zeros(1, 4, 8, 8, dtype=torch.long), torch.zeros(1, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_channels": 0, "size": 8}, "in_channels must be at least 1, got 0"),
        ({"in_channels": 4, "size": 0}, "size must be positive, got 0"),
        ({"in_channels": 4, "size": 8, "num_codes": 0}, "num_codes must be at least 1, got 0"),
        ({"in_channels": 4, "size": 8, "num_rects": 0}, "num_rects must be at least 1, got 0"),
        ({"in_channels": 4, "size": 8, "impl": "fast"}, "impl must be one of auto, fused, reference, got 'fast'"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpatialConstriction(**arguments)


def test_fresh_layer_has_the_documented_initialisation() -> None:
    layer = SpatialConstriction(64, 16, num_codes=5)
    for name in ("gate_weight_h", "gate_weight_w", "style_weight"):
        values = layer.state_dict()[name].numpy()
        assert abs(values.mean()) < 0.1, name
        assert abs(values.std() - 1) < 0.1, name
    assert np.all(layer.style_bias.detach().numpy() == 0)


def test_vmap_over_the_batch_equals_the_batch() -> None:
    layer = SpatialConstriction(4, (6, 5), num_codes=2, mask_gain=0.5)
    x, codes = torch.randn(3, 1, 4, 6, 5), torch.randn(3, 1, 2)
    batched = torch.func.vmap(layer)(x, codes)
    torch.testing.assert_close(batched.flatten(0, 1), layer(x.flatten(0, 1), codes.flatten(0, 1)))
