"""The operators in plain PyTorch: what the kernels are tested against, and what runs where there are none.

Second and higher derivatives go through these functions too, and so do functorch transforms and forward-mode
differentiation. The formulas that the paper numbers are public as `sc_layers.functional`.
"""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor


def cumax(logits: Tensor, dim: int = -1) -> Tensor:
    """Cumulative softmax, a soft step from 0 to 1 (the gate activation of Eq. 3).

    Args:
        logits: real tensor of any shape.
        dim: the dimension along which the step rises.

    Returns:
        `cumsum(softmax(logits))` along `dim`, same shape, nondecreasing, in [0, 1].
    """
    return logits.softmax(dim).cumsum(dim).clamp(max=1)  # by rounding it can end above 1, and masks below 0


def band_gate(start_logits: Tensor, end_logits: Tensor, dim: int = -1) -> Tensor:
    """Soft band-pass gate `cumax(start) * (1 - cumax(end))` (Eq. 3).

    The gate of the last position is 0 up to rounding (as low as -1e-7), since `cumax(end)` ends at 1.

    Args:
        start_logits: logits of where the band opens, any shape.
        end_logits: logits of where it closes, same shape.
        dim: the dimension along which the band lies.

    Returns:
        The gate, same shape.
    """
    return cumax(start_logits, dim) * (1 - cumax(end_logits, dim))


def rectangle_masks(
    gate_logits_h: Tensor,  # [N, K, J, 2, H]
    gate_logits_w: Tensor,  # [N, K, J, 2, W]
) -> Tensor:
    """Mean of J soft rectangles, each the outer product of a vertical and a horizontal band (Eq. 4 and 5).

    Args:
        gate_logits_h: [N, K, J, 2, H], the pair is (start, end).
        gate_logits_w: [N, K, J, 2, W].

    Returns:
        Masks [N, K, H, W] in [0, 1] up to rounding.
    """
    gate_h = band_gate(gate_logits_h[:, :, :, 0], gate_logits_h[:, :, :, 1])
    gate_w = band_gate(gate_logits_w[:, :, :, 0], gate_logits_w[:, :, :, 1])
    return gate_h.transpose(2, 3) @ gate_w / gate_h.shape[2]


def blend_weights(masks: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of the input and of every code's style after all codes of a group were applied in order.

    Applying `x <- x * (1 - a_k) + styled_k * a_k` for k = 1..K (Eq. 7, code by code) gives
    `keep * x + sum_k weight_k * styled_k` with `keep = prod_k (1 - a_k)` and
    `weight_k = a_k * prod_{l > k} (1 - a_l)`; together they sum to 1 at every pixel.

    Args:
        masks: a_k as [N, K, H, W].

    Returns:
        `keep` [N, H, W] and `weights` [N, K, H, W].
    """
    keep = torch.ones_like(masks[:, 0])
    weights = []
    for mask in reversed(masks.unbind(1)):
        weights.append(mask * keep)
        keep = keep * (1 - mask)
    return keep, torch.stack(weights[::-1], dim=1)


def statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and `1 / sqrt(var + eps)` over the pixels of every plane, biased two-pass variance.

    Args:
        x: [N, C, H, W] of any floating dtype.
        eps: added to the variance.

    Returns:
        Mean and reciprocal standard deviation, each [N, C], in the compute dtype of `x`.
    """
    x = x.to(compute_dtype(x.dtype))
    mean = x.mean((2, 3))
    return mean, ((x - mean[:, :, None, None]).square().mean((2, 3)) + eps).rsqrt()


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """`(x - mean) / sqrt(var + eps)` over the pixels of every plane, biased two-pass variance, no affine (in Eq. 6).

    Args:
        x: [N, C, H, W] of any floating dtype.
        eps: added to the variance.

    Returns:
        Same shape, in the compute dtype of `x`; a constant plane becomes 0 up to the rounding of its mean, times
        1 / sqrt(eps).
    """
    mean, rstd = statistics(x, eps)
    return (x - mean[:, :, None, None]) * rstd[:, :, None, None]


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics, gates and blending for features of `dtype`: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Context in which nothing is cast to half precision; half-precision logits would ruin the cumulative softmax.

    Args:
        device_type: such as "cpu" or "cuda".

    Returns:
        A context manager.
    """
    # Before PyTorch 2.12 Dynamo cannot trace the question. It has no need to: it traces for devices that have autocast.
    if not torch.compiler.is_compiling() and not torch.amp.is_autocast_available(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def in_functorch() -> bool:
    """Whether a functorch transform, such as vmap, is at work."""
    return torch._C._are_functorch_transforms_active()


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format that an output shares with `x`: channels_last if `x` is that and not also contiguous."""
    if in_functorch():
        return torch.contiguous_format  # vmap cannot tell the layout
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def blend(
    x: Tensor,  # [N, C, H, W]
    masks: Tensor,  # [N, K, H, W]
    scale: Tensor,  # [N, K, C]
    bias: Tensor,  # [N, K, C]
    eps: float,
) -> Tensor:
    """Masked AdaIN of a group of codes under given masks (Eq. 6 and 7, all codes collapsed into one pass).

    Args:
        x: features [N, C, H, W].
        masks: [N, K, H, W].
        scale: [N, K, C], multiplies the normalised features.
        bias: [N, K, C].
        eps: what is added to the variance of a plane before its root is taken.

    Returns:
        [N, C, H, W] in the dtype and memory format of `x`.
    """
    dtype = compute_dtype(x.dtype)
    features, masks = x.to(dtype), masks.to(dtype)
    keep, weights = blend_weights(masks)
    gain = torch.einsum("nkhw,nkc->nchw", weights, scale.to(dtype))
    shift = torch.einsum("nkhw,nkc->nchw", weights, bias.to(dtype))
    y = keep.unsqueeze(1) * features + instance_norm(features, eps) * gain + shift
    return y.to(x.dtype).contiguous(memory_format=layout_of(x))


def constrict(
    x: Tensor,  # [N, C, H, W]
    gate_logits_h: Tensor,  # [N, K, J, 2, H]
    gate_logits_w: Tensor,  # [N, K, J, 2, W]
    scale: Tensor,  # [N, K, C]
    bias: Tensor,  # [N, K, C]
    mask_gain: Tensor | None,  # [K]
    eps: float,
) -> Tensor:
    """Gates, masks and masked AdaIN of a group of codes (Eq. 3-7).

    Args:
        x, gate_logits_h, gate_logits_w, scale, bias, mask_gain, eps: as `sc_layers.functional.constrict` takes them.

    Returns:
        [N, C, H, W] in the dtype and memory format of `x`.
    """
    dtype = compute_dtype(x.dtype)
    with without_autocast(x.device.type):
        masks = rectangle_masks(gate_logits_h.to(dtype), gate_logits_w.to(dtype))
        if mask_gain is not None:
            masks = masks * mask_gain.to(dtype)[:, None, None]
        return blend(x, masks, scale, bias, eps)


def gate_logits(
    mean: Tensor,  # [N, C]
    gate_weight: Tensor,  # [K, J, 2, H or W, C]
) -> Tensor:
    """Logits of the bands' starts and ends, linear in the average-pooled features (Eq. 1 and 2).

    Args:
        mean: mean over the pixels of every plane, [N, C].
        gate_weight: [K, J, 2, H, C] or [K, J, 2, W, C], initialised with variance 1.

    Returns:
        [N, K, J, 2, H or W].
    """
    pooled = mean / math.sqrt(mean.shape[1])
    return (pooled @ gate_weight.flatten(0, 3).T).unflatten(1, gate_weight.shape[:4])


def styles(
    codes: Tensor,  # [N, K]
    style_weight: Tensor,  # [K, 2, C]
    style_bias: Tensor,  # [K, 2, C]
) -> tuple[Tensor, Tensor]:
    """Style of every code, an affine function of that scalar code (f in Eq. 6).

    Args:
        codes: [N, K].
        style_weight: [K, 2, C]; the pair is (scale, bias).
        style_bias: [K, 2, C].

    Returns:
        `scale = 1 + code * weight[0] + bias[0]` and `bias = code * weight[1] + bias[1]`, each [N, K, C].
    """
    scale, bias = (codes[:, :, None, None] * style_weight + style_bias).unbind(2)
    return scale + 1, bias


def constrict_layer(
    x: Tensor,  # [N, C, H, W]
    codes: Tensor,  # [N, K]
    gate_weight_h: Tensor,  # [K, J, 2, H, C]
    gate_weight_w: Tensor,  # [K, J, 2, W, C]
    style_weight: Tensor,  # [K, 2, C]
    style_bias: Tensor,  # [K, 2, C]
    mask_gain: Tensor | None,  # [K]
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole layer (Eq. 1-7).

    Args:
        x, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, mask_gain, eps: as
            `sc_layers.functional.spatial_constriction` takes them.

    Returns:
        y [N, C, H, W], and the gate logits [N, K, J, 2, H] and [N, K, J, 2, W].
    """
    dtype = compute_dtype(x.dtype)
    with without_autocast(x.device.type):
        mean = x.mean((2, 3), dtype=dtype)
        logits_h, logits_w = (gate_logits(mean, weight.to(dtype)) for weight in (gate_weight_h, gate_weight_w))
        scale, bias = styles(codes.to(dtype), style_weight.to(dtype), style_bias.to(dtype))
        return constrict(x, logits_h, logits_w, scale, bias, mask_gain, eps), logits_h, logits_w
