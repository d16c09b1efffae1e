"""Layers with parameters, from which generator, discriminator and recogniser are put together.

All weights are stored N(0, 1) and multiplied by 1/sqrt(fan in) when they are used (equalised learning rate).
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import functional
from .module_list import Resample

NoiseMode: TypeAlias = Literal["random", "const", "none"]
NOISE_MODES = ("random", "const", "none")


class ConvLayer(nn.Module):
    """`gain * act(conv(x, weight / sqrt(fan in)) + bias)`, after or before resampling by 2 with the low-pass filter.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        kernel_size: 1 or 3.
        resample: "id", "up" (twice the resolution) or "down" (half of it).
        activate: leaky ReLU of slope 0.2 times sqrt(2); otherwise linear.
        bias: whether there is a bias.
        gain: factor on the result.
    """

    bias: nn.Parameter | None
    fir: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        resample: Resample = "id",
        activate: bool = True,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.resample = resample
        self.activate = activate
        # A leaky ReLU commutes with positive factors: all of them go into the weights instead of over the features.
        self.gain = gain * (functional.LEAKY_GAIN if activate else 1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_channels)) if bias else None)
        if resample != "id":
            self.register_buffer("fir", functional.fir_taps(), persistent=False)

    def convolve(self, x: Tensor) -> Tensor:
        """What goes into the activation, for features x [N, in, H, W]."""
        weight = self.weight * (self.gain / math.sqrt(self.weight[0].numel()))
        bias = None if self.bias is None else self.bias * self.gain
        if self.resample == "up":
            return functional.upsample_conv(x, weight, self.fir, bias)
        if self.resample == "down":
            return functional.downsample_conv(x, weight, self.fir, bias)
        return F.conv2d(x, weight, bias, padding=weight.shape[2] // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Features x [N, in, H, W] -> [N, out, H', W'], with H' = H, 2H or H / 2 as `resample` says."""
        y = self.convolve(x)
        return F.leaky_relu_(y, functional.LEAKY_SLOPE) if self.activate else y

    def extra_repr(self) -> str:
        """The sizes and options, as `print` shows them."""
        out_channels, in_channels, kernel_size, _ = self.weight.shape
        return (
            f"{in_channels}, {out_channels}, kernel_size={kernel_size}, resample={self.resample!r}, "
            f"activate={self.activate}"
        )


class LinearLayer(nn.Module):
    """`act(x @ weight.T / sqrt(in) + bias)`.

    Args:
        in_features: input features.
        out_features: output features.
        activate: leaky ReLU of slope 0.2 times sqrt(2); otherwise linear.
    """

    def __init__(self, in_features: int, out_features: int, activate: bool = False) -> None:
        super().__init__()
        self.activate = activate
        self.gain = functional.LEAKY_GAIN if activate else 1.0
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, in] -> [N, out]."""
        y = F.linear(x, self.weight * (self.gain / math.sqrt(self.weight.shape[1])), self.bias * self.gain)
        return F.leaky_relu_(y, functional.LEAKY_SLOPE) if self.activate else y

    def extra_repr(self) -> str:
        """The sizes and options, as `print` shows them."""
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, activate={self.activate}"


class Const(nn.Module):
    """`Const-n`: a learned map, the same for every sample.

    Args:
        channels: how many channels n the map has.
        size: height and width of the map in pixels.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.randn(1, channels, size, size))

    def forward(self) -> Tensor:
        """The map [1, n, size, size]."""
        return self.const


class ConvModule(nn.Module):
    """`Conv-{id,up,down}-n` and `ResConv-{id,up,down}-n`: n convolutions, with or without a skip around them all.

    The skip is resampled without a filter (nearest, or mean of 2x2), then goes through one activated 1x1 convolution.

    Args:
        in_channels: input channels.
        out_channels: channels of every convolution.
        layers: the number n of 3x3 convolutions.
        resample: what each of them does to the resolution.
        residual: whether there is a skip.
    """

    def __init__(self, in_channels: int, out_channels: int, layers: int, resample: Resample, residual: bool) -> None:
        super().__init__()
        self.resample = resample
        self.convs = nn.ModuleList(
            ConvLayer(out_channels if layer else in_channels, out_channels, resample=resample)
            for layer in range(layers)
        )
        self.skip = ConvLayer(in_channels, out_channels, kernel_size=1) if residual else None

    def _shortcut(self, skip: ConvLayer, x: Tensor) -> Tensor:
        factor = 2 ** len(self.convs)
        if self.resample == "down":
            x = functional.downsample_mean(x, factor)
        y: Tensor = skip(x)
        # Repeating pixels commutes with whatever acts on each alone, so it comes last: a quarter of the work.
        return functional.upsample_nearest(y, factor) if self.resample == "up" else y

    def forward(self, x: Tensor) -> Tensor:
        """Features x [N, in, H, W] -> [N, out, H', W'], resampled once by every convolution."""
        y = x
        for conv in self.convs:
            y = conv(y)
        return y if self.skip is None else y + self._shortcut(self.skip, x)


class NoiseConv(ConvLayer):
    """A 3x3 convolution with noise before the activation: `act(conv(x) + strength * noise + bias)`.

    The noise is one map [H, W] for all channels; its strength is learned and starts at 0.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        size: height and width of the features.
    """

    noise_map: Tensor

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_map", torch.randn(1, 1, size, size))

    def _noise(self, y: Tensor, noise_mode: NoiseMode) -> Tensor:
        if noise_mode == "const":
            return self.noise_map
        batch, _, height, width = y.shape
        return torch.randn(batch, 1, height, width, dtype=y.dtype, device=y.device)

    def forward(self, x: Tensor, noise_mode: NoiseMode = "random") -> Tensor:
        """Features x [N, in, size, size] -> [N, out, size, size].

        Args:
            x: the features.
            noise_mode: "random" draws a map for each sample, "const" takes the stored one, "none" adds nothing.
        """
        y = self.convolve(x)
        if noise_mode != "none":
            y = y + (self._noise(y, noise_mode) * (self.noise_strength * self.gain)).to(y.dtype)
        return F.leaky_relu_(y, functional.LEAKY_SLOPE)


class NoiseModule(nn.Module):
    """`Noise-n`: n convolutions with noise.

    Args:
        in_channels: input channels.
        out_channels: channels of every convolution.
        layers: the number n of convolutions.
        size: height and width of the features.
    """

    def __init__(self, in_channels: int, out_channels: int, layers: int, size: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            NoiseConv(out_channels if layer else in_channels, out_channels, size) for layer in range(layers)
        )

    def forward(self, x: Tensor, noise_mode: NoiseMode = "random") -> Tensor:
        """Features x [N, in, size, size] -> [N, out, size, size]; `noise_mode` as `NoiseConv` has it."""
        for conv in self.convs:
            x = conv(x, noise_mode)
        return x


class GlobalModule(nn.Module):
    """`C_global-K`: an activated 3x3 convolution modulated by K codes, `style = linear(codes) + 1`.

    Args:
        in_channels: input channels.
        out_channels: output channels.
        num_codes: codes K.
    """

    def __init__(self, in_channels: int, out_channels: int, num_codes: int) -> None:
        super().__init__()
        self.style = LinearLayer(num_codes, in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, codes: Tensor) -> Tensor:
        """Features x [N, in, H, W] under codes [N, K] -> [N, out, H, W]."""
        weight = self.weight / math.sqrt(9 * self.weight.shape[1])
        y = functional.modulated_conv(x, weight, self.style(codes) + 1)
        y = (y + self.bias.to(y.dtype)[:, None, None]) * functional.LEAKY_GAIN
        return F.leaky_relu_(y, functional.LEAKY_SLOPE)
