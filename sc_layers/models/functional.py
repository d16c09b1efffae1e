"""Convolutions, resampling and statistics that the networks are made of, as functions on tensors.

Everything is built from PyTorch's own differentiable operations, so it can be differentiated as often as one likes.
Operations on features keep their memory format, channels_last or contiguous.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..functional import compute_dtype, layout_of

LEAKY_SLOPE = 0.2
LEAKY_GAIN = math.sqrt(2)
FIR_TAPS = (1, 3, 3, 1)
MINIBATCH_STD_GROUP = 4


def fir_taps() -> Tensor:
    """The low-pass filter of all resampling along one axis, [1, 3, 3, 1] over 8: [4], sum 1."""
    taps = torch.tensor(FIR_TAPS, dtype=torch.float32)
    return taps / taps.sum()


def fir_filter(
    x: Tensor,  # [N, C, H, W]
    taps: Tensor,  # [T]
    padding: tuple[int, int],
    stride: int = 1,
) -> Tensor:
    """Filter every channel along height and width with the same symmetric taps, zeros outside.

    On the CPU this is a depthwise convolution. Elsewhere depthwise convolutions are slow, and so are their gradients in
    half precision on the CPU: there it is a product with a banded matrix along each axis, which tensor cores carry out.

    Args:
        x: [N, C, H, W].
        taps: [T], symmetric, so that convolution and correlation are one.
        padding: rows (and columns) of zeros before and after.
        stride: keep every stride-th row and column.

    Returns:
        [N, C, (H + sum(padding) - T) // stride + 1, the same for W].
    """
    taps = taps.to(x.dtype)
    if x.device.type == "cpu" and (stride == 1 or x.dtype in (torch.float32, torch.float64)):
        return fir_filter_depthwise(x, taps, padding, stride)
    return fir_filter_banded(x, taps, padding, stride)


def fir_filter_depthwise(x: Tensor, taps: Tensor, padding: tuple[int, int], stride: int) -> Tensor:
    """`fir_filter` as a convolution of every channel with the outer product of the taps with themselves.

    Args:
        x: [N, C, H, W].
        taps: [T], symmetric, of the dtype of x.
        padding: rows (and columns) of zeros before and after.
        stride: keep every stride-th row and column.
    """
    before, after = padding
    if before != after:
        x = F.pad(x, (before, after, before, after))
    channels = x.shape[1]
    weight = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    return F.conv2d(x, weight, None, stride, before if before == after else 0, groups=channels)


def fir_filter_banded(x: Tensor, taps: Tensor, padding: tuple[int, int], stride: int) -> Tensor:
    """`fir_filter` as products with banded matrices, in the memory format of x: without a copy of the features.

    Args:
        x: [N, C, H, W].
        taps: [T], symmetric, of the dtype of x.
        padding: rows (and columns) of zeros before and after.
        stride: keep every stride-th row and column.
    """
    batch, channels, height, width = x.shape
    rows, columns = (_band(taps, size, padding, stride) for size in (height, width))
    if layout_of(x) == torch.channels_last:
        y = torch.bmm(rows.expand(batch, -1, -1), x.permute(0, 2, 3, 1).reshape(batch, height, -1))
        y = torch.bmm(columns.expand(batch * len(rows), -1, -1), y.view(-1, width, channels))
        return y.view(batch, len(rows), len(columns), channels).permute(0, 3, 1, 2)
    y = torch.bmm(rows.expand(batch * channels, -1, -1), x.reshape(-1, height, width))
    return (y.view(-1, width) @ columns.T).view(batch, channels, len(rows), len(columns))


def _band(taps: Tensor, size: int, padding: tuple[int, int], stride: int) -> Tensor:
    """The matrix [size', size] whose row i holds the taps from column `i * stride - padding[0]` on."""
    padded = size + sum(padding)
    rows = (padded - len(taps)) // stride + 1
    # Read `stride` entries a row short of what was written, every row begins that much further right in the next.
    written = F.pad(taps, (0, padded + stride - len(taps))).repeat(rows)
    return written[: rows * padded].view(rows, padded)[:, padding[0] : padding[0] + size]


def upsample_conv(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k]
    taps: Tensor,  # [4]
    bias: Tensor | None = None,  # [O]
) -> Tensor:
    """Double the resolution: zeros between the pixels, a k x k convolution, then the low-pass filter times 4.

    Args:
        x: [N, I, H, W].
        weight: correlation kernel [O, I, k, k], k = 1 or 3.
        taps: the low-pass filter [4].
        bias: [O], added to the result.

    Returns:
        [N, O, 2H, 2W].

    Source: SPEC, up 3x3.
    """
    # A transposed convolution touches no inserted zero: a quarter of the work. It spreads the kernel, hence the flip.
    y = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
    before_and_after = 1 if weight.shape[2] == 3 else 2
    y = fir_filter(y, taps * 2, (before_and_after, before_and_after))
    # Not the bias of the filter's convolution: its gradient would bring that of the constant filter along.
    return y if bias is None else y + bias.to(y.dtype)[:, None, None]


def downsample_conv(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k]
    taps: Tensor,  # [4]
    bias: Tensor | None = None,  # [O]
) -> Tensor:
    """Halve the resolution: low-pass filter, then a k x k convolution of stride 2.

    Args:
        x: [N, I, H, W], H and W even.
        weight: correlation kernel [O, I, k, k], k = 1 or 3.
        taps: the low-pass filter [4].
        bias: [O], added to the result.

    Returns:
        [N, O, H / 2, W / 2].

    Source: SPEC, down 3x3 and down 1x1.
    """
    if weight.shape[2] == 1:
        # A 1x1 convolution reads only every other filtered pixel, so no other is computed.
        return F.conv2d(fir_filter(x, taps, (1, 1), stride=2), weight, bias)
    return F.conv2d(fir_filter(x, taps, (2, 2)), weight, bias, stride=2)


def upsample_nearest(x: Tensor, factor: int = 2) -> Tensor:
    """Repeat every pixel `factor` times along height and width: x [N, C, H, W] -> [N, C, factor H, factor W]."""
    return F.interpolate(x, scale_factor=float(factor), mode="nearest")


def downsample_mean(x: Tensor, factor: int = 2) -> Tensor:
    """Mean over blocks of `factor` x `factor` pixels: x [N, C, H, W] -> [N, C, H / factor, W / factor]."""
    return F.avg_pool2d(x, factor)


def modulated_conv(
    x: Tensor,  # [N, I, H, W]
    weight: Tensor,  # [O, I, k, k]
    style: Tensor,  # [N, I]
    demodulate: bool = True,
    eps: float = 1e-8,
) -> Tensor:
    """Convolution whose weights are scaled per sample and input channel, and normalised per output channel.

    `w'_oi = s_i w_oi / sqrt(sum_i (s_i w_oi)^2 + eps)`, carried out by scaling the features before and after, which
    needs no weights of its own for every sample.

    Args:
        x: [N, I, H, W].
        weight: [O, I, k, k], k odd.
        style: s as [N, I].
        demodulate: whether to divide by the norm.
        eps: added to the squared norm.

    Returns:
        [N, O, H, W].

    Source: SPEC, C_global.
    """
    y = F.conv2d(x * style.to(x.dtype)[:, :, None, None], weight, padding=weight.shape[2] // 2)
    if not demodulate:
        return y
    with torch.autocast(x.device.type, enabled=False):
        squared_norm = style.to(weight.dtype).square() @ weight.square().sum((2, 3)).T
    return y * (squared_norm + eps).rsqrt().to(y.dtype)[:, :, None, None]


def minibatch_std(x: Tensor, group_size: int = MINIBATCH_STD_GROUP, eps: float = 1e-8) -> Tensor:
    """Append one channel: the standard deviation across a group of samples, averaged over channels and pixels.

    A group has G = min(group_size, N) samples; sample n is in group n mod N/G.

    Args:
        x: [N, C, H, W]; N from 1 to `group_size`, or a multiple of it.
        group_size: samples a group.
        eps: added to the variance.

    Returns:
        [N, C + 1, H, W].

    Raises:
        ValueError: the batch cannot be divided into groups.

    Source: SPEC, D and I.
    """
    batch, _, height, width = x.shape
    size = min(group_size, batch)
    if not batch or batch % size:
        raise ValueError(
            f"a batch of {batch} cannot be grouped for the minibatch standard deviation: "
            f"expected 1 to {group_size} samples or a multiple of {group_size}"
        )
    groups = x.to(compute_dtype(x.dtype)).view(size, batch // size, *x.shape[1:])
    variance = (groups - groups.mean(0)).square().mean(0)
    deviation = (variance + eps).sqrt().mean((1, 2, 3)).to(x.dtype)
    feature = deviation.repeat(size)[:, None, None, None].expand(batch, 1, height, width)
    return torch.cat([x, feature], dim=1).contiguous(memory_format=layout_of(x))


def resize_bilinear_legacy(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize by the old rule: source coordinate = target coordinate * H / H', without half-pixel centres.

    Args:
        x: [N, C, H, W].
        size: H' and W'.

    Returns:
        [N, C, H', W']; coordinates beyond the last row or column are clamped to it.

    Source: SPEC, returned masks.
    """
    if tuple(x.shape[2:]) == tuple(size):
        return x
    # The corner-aligned rule maps t to t * (H - 1) / (H' - 1): with one more row on both sides that is t * H / H'.
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    resized = F.interpolate(padded, (size[0] + 1, size[1] + 1), mode="bilinear", align_corners=True)
    return resized[:, :, :-1, :-1]
