"""The layers that the networks are made of, each against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sc_layers.models import functional
from sc_layers.models.modules import ConvLayer, ConvModule, GlobalModule, LinearLayer, NoiseConv
from tests.tolerances import SAME_FORMULA

CLOSE = SAME_FORMULA[torch.float32]


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 3, 8, 8)


def with_biases(layer: nn.Module) -> nn.Module:
    for name, parameter in layer.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return layer


def leaky(y: Tensor) -> Tensor:
    return F.leaky_relu(y, 0.2) * math.sqrt(2)


@pytest.mark.parametrize("activate", [True, False])
def test_a_convolution_scales_its_weights_and_then_activates(x: Tensor, activate: bool) -> None:
    layer = with_biases(ConvLayer(3, 5, activate=activate, gain=0.5))
    y = F.conv2d(x, layer.weight / math.sqrt(27), layer.bias, padding=1)
    torch.testing.assert_close(layer(x), 0.5 * (leaky(y) if activate else y), **CLOSE)


@pytest.mark.parametrize(("resample", "size"), [("id", 8), ("up", 16), ("down", 4)])
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_a_convolution_resamples(x: Tensor, resample: str, size: int, kernel_size: int) -> None:
    layer = ConvLayer(3, 5, kernel_size, resample)  # type: ignore[arg-type]
    assert layer(x).shape == (2, 5, size, size)
    assert ("fir" in dict(layer.named_buffers())) == (resample != "id")
    assert "fir" not in layer.state_dict()


def test_a_linear_layer_scales_its_weights_and_then_activates() -> None:
    layer, x = with_biases(LinearLayer(6, 4, activate=True)), torch.randn(2, 6)
    expected = leaky(x @ layer.weight.T / math.sqrt(6) + layer.bias)
    torch.testing.assert_close(layer(x), expected, **CLOSE)


@pytest.mark.parametrize("resample", ["id", "up", "down"])
def test_the_skip_of_a_block_is_resampled_without_filter(x: Tensor, resample: str) -> None:
    block = with_biases(ConvModule(3, 5, 1, resample, residual=True))  # type: ignore[arg-type]
    assert block.skip is not None
    shortcut = {
        "id": lambda: block.skip(x),
        "up": lambda: block.skip(functional.upsample_nearest(x)),
        "down": lambda: block.skip(functional.downsample_mean(x)),
    }[resample]()
    torch.testing.assert_close(block(x), block.convs[0](x) + shortcut, **CLOSE)


def test_noise_is_one_map_for_all_channels_before_the_activation(x: Tensor) -> None:
    layer = with_biases(NoiseConv(3, 5, 8))
    assert torch.equal(layer(x, "none"), layer(x, "const")), "the strength of the noise starts at 0"
    nn.init.constant_(layer.noise_strength, 0.7)
    y = F.conv2d(x, layer.weight / math.sqrt(27), layer.bias, padding=1)
    torch.testing.assert_close(layer(x, "const"), leaky(y + 0.7 * layer.noise_map), **CLOSE)
    first, second = layer(x, "random"), layer(x, "random")
    assert not torch.equal(first, second)


def test_codes_modulate_a_convolution_around_one(x: Tensor) -> None:
    module = with_biases(GlobalModule(3, 5, 2))
    codes = torch.randn(2, 2)
    style = codes @ module.style.weight.T / math.sqrt(2) + module.style.bias + 1
    y = functional.modulated_conv(x, module.weight / math.sqrt(27), style)
    torch.testing.assert_close(module(x, codes), leaky(y + module.bias[:, None, None]), **CLOSE)


@pytest.mark.parametrize(
    ("layer", "text"),
    [
        (ConvLayer(3, 5, 1, "up", activate=False), "3, 5, kernel_size=1, resample='up', activate=False"),
        (LinearLayer(6, 4), "6, 4, activate=False"),
    ],
)
def test_a_layer_prints_what_it_is_made_of(layer: nn.Module, text: str) -> None:
    assert layer.extra_repr() == text
