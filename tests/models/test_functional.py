"""Single operations against the authors' program, and their second derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sc_layers.functional import instance_norm
from sc_layers.layers import SpatialConstriction
from sc_layers.models import functional
from sc_layers.models.modules import ConvLayer, LinearLayer
from tests.golden import Golden, load_golden
from tests.tolerances import GOLDEN_NETWORK_ABSOLUTE, SAME_FORMULA, assert_close_absolute

TAPS = functional.fir_taps()
Variables = dict[str, Tensor]


@pytest.fixture(scope="module")
def golden() -> Golden:
    return load_golden("ops")


def _equalised(weight: Tensor) -> Tensor:
    """[kh, kw, in, out] as stored -> [out, in, kh, kw] as used."""
    return weight.permute(3, 2, 0, 1) / math.sqrt(weight[..., 0].numel())


def _pointwise(x: Tensor, v: Variables, activate: bool) -> Tensor:
    """Bias and activation of a convolution layer that otherwise does nothing."""
    channels = x.shape[1]
    layer = ConvLayer(channels, channels, kernel_size=1, activate=activate)
    weight = torch.eye(channels)[:, :, None, None] * math.sqrt(channels)
    result: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": v["bias"]}, x)
    return result


def _dense(x: Tensor, v: Variables, activate: bool = False, lr_multiplier: float = 1.0) -> Tensor:
    """A linear layer; a multiplier of the learning rate is a factor on its parameters."""
    layer = LinearLayer(x[0].numel(), v["weight"].shape[1], activate)
    parameters = {"weight": v["weight"].T * lr_multiplier, "bias": v.get("bias", layer.bias) * lr_multiplier}
    result: Tensor = torch.func.functional_call(layer, parameters, x.flatten(1))
    return result


def _modulated(x: Tensor, v: Variables, codes: Tensor, demodulate: bool = True) -> Tensor:
    style = codes @ v["mod_weight"] / math.sqrt(codes.shape[1]) + v["mod_bias"] + 1
    return functional.modulated_conv(x, _equalised(v["weight"]), style, demodulate)


def _styled(x: Tensor, v: Variables, codes: Tensor) -> Tensor:
    """The style of several codes is the sum of those that a layer gives to each."""
    layer = SpatialConstriction(5, 8, num_codes=3)
    del layer.style_weight, layer.style_bias
    layer.style_weight = v["StyleMod/weight"].view(3, 2, 5)
    layer.style_bias = torch.cat([v["StyleMod/bias"].view(1, 2, 5), torch.zeros(2, 2, 5)])
    scale, bias = layer.styles(codes)
    return x * (1 + (scale - 1).sum(1))[:, :, None, None] + bias.sum(1)[:, :, None, None]


def _resized(x: Tensor, size: int) -> Tensor:
    """The authors' resize works on [N, H, W, C]."""
    return functional.resize_bilinear_legacy(x, (size, size)).permute(0, 2, 3, 1)


IDENTITY = torch.eye(5)[:, :, None, None]
# Operation of the authors' program -> ours on x, the operation's variables, and codes.
OPERATIONS: dict[str, Callable[[Tensor, Variables, Tensor], Tensor]] = {
    "upsample_2d": lambda x, v, z: functional.upsample_conv(x, IDENTITY, TAPS),
    "downsample_2d": lambda x, v, z: functional.downsample_conv(x, IDENTITY, TAPS),
    "filter_2d": lambda x, v, z: functional.fir_filter(x, TAPS, (2, 1)),
    "upsample_2d_nokernel": lambda x, v, z: functional.upsample_nearest(x),
    "naive_upsample_2d": lambda x, v, z: functional.upsample_nearest(x),
    "naive_downsample_2d": lambda x, v, z: functional.downsample_mean(x),
    "conv3": lambda x, v, z: F.conv2d(x, _equalised(v["weight"]), padding=1),
    "conv1": lambda x, v, z: F.conv2d(x, _equalised(v["weight"])),
    "conv3_up": lambda x, v, z: functional.upsample_conv(x, _equalised(v["weight"]), TAPS),
    "conv1_up": lambda x, v, z: functional.upsample_conv(x, _equalised(v["weight"]), TAPS),
    "conv3_down": lambda x, v, z: functional.downsample_conv(x, _equalised(v["weight"]), TAPS),
    "conv1_down": lambda x, v, z: functional.downsample_conv(x, _equalised(v["weight"]), TAPS),
    "bias_lrelu": lambda x, v, z: _pointwise(x, v, activate=True),
    "bias_linear": lambda x, v, z: _pointwise(x, v, activate=False),
    "dense_flat": lambda x, v, z: _dense(x, v),
    "dense_lrmul": lambda x, v, z: _dense(x, v, activate=True, lr_multiplier=0.01),
    "modconv3": _modulated,
    "modconv3_unfused": _modulated,
    "modconv1_nodemod": lambda x, v, z: _modulated(x, v, z, demodulate=False),
    "instance_norm": lambda x, v, z: instance_norm(x, 1e-8),
    "style_mod": _styled,
    "mbstd_g4": lambda x, v, z: functional.minibatch_std(x),
    "resize_up": lambda x, v, z: _resized(x, 32),
    "resize_odd": lambda x, v, z: _resized(x, 24),
}


def test_every_operation_of_the_file_is_compared(golden: Golden) -> None:
    assert set(golden.group("out/")) == set(OPERATIONS)


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_outputs_and_gradients_match(golden: Golden, name: str, channels_last: bool) -> None:
    x = golden["x"].contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    variables = {key: torch.from_numpy(value) for key, value in golden.group(f"var/{name}/").items()}
    leaves = [x, *variables.values()]
    for leaf in leaves:
        leaf.requires_grad_()
    y = OPERATIONS[name](x, variables, golden["lat"])
    assert_close_absolute(y, golden[f"out/{name}"], GOLDEN_NETWORK_ABSOLUTE, name)
    gradients = torch.autograd.grad((y * golden[f"R/{name}"]).sum(), leaves)
    for key, gradient in zip(["x", *(f"var/{name}/{key}" for key in variables)], gradients, strict=True):
        assert_close_absolute(gradient, golden[f"grad/{name}/{key}"], GOLDEN_NETWORK_ABSOLUTE, f"{name} grad {key}")


def test_filtering_by_matrices_is_the_depthwise_convolution() -> None:
    for padding, stride, size in [((2, 1), 1, (6, 9)), ((2, 2), 1, (5, 8)), ((1, 1), 2, (8, 6)), ((1, 1), 1, (17, 4))]:
        x = torch.randn(2, 3, *size)
        expected = functional.fir_filter_depthwise(x, TAPS, padding, stride)
        for layout in (torch.contiguous_format, torch.channels_last):
            y = functional.fir_filter_banded(x.contiguous(memory_format=layout), TAPS, padding, stride)
            assert y.is_contiguous(memory_format=layout)
            torch.testing.assert_close(y, expected, **SAME_FORMULA[torch.float32])


TWICE = {
    "fir_filter_banded": lambda x, w: functional.fir_filter_banded(x, TAPS.to(x.dtype), (2, 1), 1),
    "upsample_conv": lambda x, w: functional.upsample_conv(x, w, TAPS),
    "downsample_conv": lambda x, w: functional.downsample_conv(x, w, TAPS),
    "downsample_conv 1x1": lambda x, w: functional.downsample_conv(x, w[:, :, :1, :1], TAPS),
    "modulated_conv": lambda x, w: functional.modulated_conv(x, w, x.mean((2, 3))),
    "minibatch_std": lambda x, w: functional.minibatch_std(x),
    "resize_bilinear_legacy": lambda x, w: functional.resize_bilinear_legacy(x, (7, 5)),
    "upsample_nearest": lambda x, w: functional.upsample_nearest(x, 4),
    "downsample_mean": lambda x, w: functional.downsample_mean(x, 4),
}


@pytest.mark.parametrize("name", TWICE)
def test_operations_differentiate_twice(name: str) -> None:
    x = torch.randn(4, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)

    def nonlinear(x: Tensor, weight: Tensor) -> Tensor:
        return TWICE[name](x * x, weight * weight)

    assert torch.autograd.gradcheck(nonlinear, (x, weight), fast_mode=True)
    assert torch.autograd.gradgradcheck(nonlinear, (x, weight), fast_mode=True)


@pytest.mark.parametrize("name", sorted(set(TWICE) - {"resize_bilinear_legacy"}))
def test_operations_on_features_keep_channels_last(name: str) -> None:
    x = torch.randn(4, 2, 4, 4).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(3, 2, 3, 3)
    y = TWICE[name](x, weight)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, TWICE[name](x.contiguous(), weight), **SAME_FORMULA[torch.float32])


@pytest.mark.parametrize(("batch", "groups"), [(1, [[0]]), (3, [[0, 1, 2]]), (8, [[0, 2, 4, 6], [1, 3, 5, 7]])])
def test_minibatch_std_groups_every_so_many_samples(batch: int, groups: list[list[int]]) -> None:
    x = torch.randn(batch, 3, 4, 5)
    feature = functional.minibatch_std(x)[:, 3]
    for group in groups:
        expected = (x[group].var(0, correction=0) + 1e-8).sqrt().mean()
        torch.testing.assert_close(feature[group], expected.expand(len(group), 4, 5))


@pytest.mark.parametrize("batch", [0, 5, 6, 10])
def test_minibatch_std_names_a_batch_that_it_cannot_group(batch: int) -> None:
    with pytest.raises(ValueError, match=f"a batch of {batch} cannot be grouped .* a multiple of 4"):
        functional.minibatch_std(torch.zeros(batch, 2, 4, 4))


def test_resize_clamps_beyond_the_last_row_and_column() -> None:
    x = torch.arange(4.0).view(1, 1, 2, 2)
    expected = torch.tensor([[0, 0.5, 1, 1], [1, 1.5, 2, 2], [2, 2.5, 3, 3], [2, 2.5, 3, 3]])
    torch.testing.assert_close(functional.resize_bilinear_legacy(x, (4, 4))[0, 0], expected)
    assert functional.resize_bilinear_legacy(x, (2, 2)) is x
