"""The formulas of spatial constriction (paper, Sec. 3.1) as plain functions on tensors."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .ops import loading

IMPLEMENTATIONS = loading.IMPLEMENTATIONS


def cumax(logits: Tensor, dim: int = -1) -> Tensor:
    """Cumulative softmax, a soft step from 0 to 1 (the gate activation of Eq. 3).

    Args:
        logits: real tensor of any shape.
        dim: the dimension along which the step rises.

    Returns:
        `cumsum(softmax(logits))` along `dim`, same shape, nondecreasing, in [0, 1] up to rounding.
    """
    return logits.softmax(dim).cumsum(dim)


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


def instance_norm(x: Tensor, eps: float) -> Tensor:
    """`(x - mean) / sqrt(var + eps)` over the pixels of every plane, biased two-pass variance, no affine.

    Args:
        x: [N, C, H, W], float32 or float64.
        eps: added to the variance.

    Returns:
        Same shape; a constant plane becomes 0 up to the rounding of its mean, times 1 / sqrt(eps).
    """
    centred = x - x.mean((2, 3), keepdim=True)
    return centred * (centred.square().mean((2, 3), keepdim=True) + eps).rsqrt()


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics, gates and blending for features of `dtype`: float64 for float64, else float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(device_type: str) -> contextlib.AbstractContextManager[object]:
    """Context in which nothing is cast to half precision; half-precision logits would ruin the cumulative softmax."""
    if not torch.amp.is_autocast_available(device_type):
        return contextlib.nullcontext()
    return torch.autocast(device_type, enabled=False)


def _in_functorch() -> bool:
    return torch._C._are_functorch_transforms_active()


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format that an output shares with `x`: channels_last if `x` is that and not also contiguous."""
    if _in_functorch():
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
        eps: of the instance norm.

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


def _constrict_reference(
    x: Tensor,
    gate_logits_h: Tensor,
    gate_logits_w: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask_gain: Tensor | None,
    eps: float,
) -> Tensor:
    dtype = compute_dtype(x.dtype)
    with without_autocast(x.device.type):
        masks = rectangle_masks(gate_logits_h.to(dtype), gate_logits_w.to(dtype))
        if mask_gain is not None:
            masks = masks * mask_gain.to(dtype)[:, None, None]
        return blend(x, masks, scale, bias, eps)


loading.register_reference(_constrict_reference)


def _is_transformed(tensors: list[Tensor]) -> bool:
    """Whether a functorch transform or forward-mode differentiation is at work: the fused operator has no rules."""
    return _in_functorch() or any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors)


def _constrict_fused(
    x: Tensor,
    gate_logits_h: Tensor,
    gate_logits_w: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask_gain: Tensor | None,
    eps: float,
) -> Tensor:
    dtype = compute_dtype(x.dtype)
    mask_gain = None if mask_gain is None else mask_gain.to(dtype)
    styles = (scale.to(dtype), bias.to(dtype))
    return loading.constrict(x, gate_logits_h.to(dtype), gate_logits_w.to(dtype), *styles, mask_gain, eps)


def _check_constrict(
    x: Tensor,
    gate_logits_h: Tensor,
    gate_logits_w: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask_gain: Tensor | None,
) -> None:
    tensors = {"x": x, "gate_logits_h": gate_logits_h, "gate_logits_w": gate_logits_w, "scale": scale, "bias": bias}
    if mask_gain is not None:
        tensors["mask_gain"] = mask_gain
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {tensor.dtype}")
        if tensor.device != x.device:
            raise ValueError(f"all tensors must be on one device: x is on {x.device}, {name} on {tensor.device}")
    if x.ndim != 4:
        raise ValueError(f"x must be [N, C, H, W], got shape {tuple(x.shape)}")
    if gate_logits_h.ndim != 5:
        raise ValueError(f"gate_logits_h must be [N, K, J, 2, H], got shape {tuple(gate_logits_h.shape)}")
    n, c, h, w = x.shape
    k, j = gate_logits_h.shape[1:3]
    if min(c, h, w, k, j) < 1:
        raise ValueError(f"only the batch may be empty, got x {tuple(x.shape)} with K={k} codes, J={j} rectangles")
    expected = {
        "gate_logits_h": (n, k, j, 2, h),
        "gate_logits_w": (n, k, j, 2, w),
        "scale": (n, k, c),
        "bias": (n, k, c),
        "mask_gain": (k,),
    }
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            raise ValueError(
                f"{name} must have shape {shape} for x {tuple(x.shape)} with K={k} codes and J={j} rectangles, "
                f"got {tuple(tensors[name].shape)}"
            )


def constrict(
    x: Tensor,  # [N, C, H, W]
    gate_logits_h: Tensor,  # [N, K, J, 2, H]
    gate_logits_w: Tensor,  # [N, K, J, 2, W]
    scale: Tensor,  # [N, K, C]
    bias: Tensor,  # [N, K, C]
    mask_gain: Tensor | None = None,  # [K]
    eps: float = 1e-8,
    impl: str = "auto",
) -> Tensor:
    """Spatial constriction of features by a group of K codes: gates, masks, masked AdaIN (Eq. 3-7).

    All codes see the same instance-normalised features and are applied in order; K = 1 is Eq. 6-7 to the letter.

    Args:
        x: features [N, C, H, W], float16, bfloat16, float32 or float64, contiguous or channels_last.
        gate_logits_h: [N, K, J, 2, H]; the pair is (start, end) of the band, J the number of rectangles a code.
        gate_logits_w: [N, K, J, 2, W].
        scale: [N, K, C], multiplies the normalised features where a code acts (1 leaves them as they are).
        bias: [N, K, C], added to them.
        mask_gain: [K], multiplies the masks of each code; None stands for 1.
        eps: added to the variance in the instance norm.
        impl: "auto", "fused" (the native operator) or "reference" (plain PyTorch).

    Returns:
        [N, C, H, W] in the dtype and memory format of `x`.

    Raises:
        TypeError: a tensor is not of floating point.
        ValueError: shapes that do not fit each other, tensors on different devices, an unknown `impl`.

    Source: paper Sec. 3.1; SPEC of the authors' `C_spgroup`. Statistics and gates are computed in float32
    (float64 for float64 features) whatever the dtype of the features.
    """
    _check_constrict(x, gate_logits_h, gate_logits_w, scale, bias, mask_gain)
    tensors = (x, gate_logits_h, gate_logits_w, scale, bias, mask_gain)
    if loading.use_fused(impl, x.device.type) and not _is_transformed([t for t in tensors if t is not None]):
        return _constrict_fused(*tensors, eps)
    return _constrict_reference(*tensors, eps)
