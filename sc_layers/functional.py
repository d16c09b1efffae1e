"""The formulas of spatial constriction (paper, Sec. 3.1) as plain functions on tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd import forward_ad

from .ops import loading, reference, schema
from .ops.reference import (
    band_gate,
    blend,
    blend_weights,
    compute_dtype,
    cumax,
    gate_logits,
    instance_norm,
    layout_of,
    rectangle_masks,
    styles,
    without_autocast,
)
from .ops.schema import ConstrictTensors, LayerTensors

__all__ = [
    "IMPLEMENTATIONS",
    "band_gate",
    "blend",
    "blend_weights",
    "compute_dtype",
    "constrict",
    "cumax",
    "gate_logits",
    "instance_norm",
    "layout_of",
    "rectangle_masks",
    "run_layer",
    "spatial_constriction",
    "statistics",
    "styles",
    "without_autocast",
]

IMPLEMENTATIONS = loading.IMPLEMENTATIONS


def _is_transformed(tensors: ConstrictTensors | LayerTensors | tuple[Tensor]) -> bool:
    """Whether a functorch transform or forward-mode differentiation is at work: the fused operators have no rules."""
    if reference.in_functorch():
        return True
    # Asking every tensor takes longer than the checks of all shapes: only inside a dual level.
    return forward_ad._current_level >= 0 and any(
        tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors
    )


def _runs_fused(impl: str, tensors: ConstrictTensors | LayerTensors | tuple[Tensor]) -> bool:
    return loading.use_fused(impl, tensors[0].device.type) and not _is_transformed(tensors)


def _converted(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return tensor if tensor is None or tensor.dtype == dtype else tensor.to(dtype)  # asking is quicker than `to`


def statistics(x: Tensor, eps: float = 1e-8, impl: str = "auto") -> tuple[Tensor, Tensor]:
    """Mean and `1 / sqrt(var + eps)` of every plane, in one read of x: what pooling (Eq. 1) and Eq. 6 begin with.

    The variance is biased and of two passes; a constant plane has exactly its value for a mean.

    Args:
        x: features [N, C, H, W] of any floating dtype, contiguous or channels_last.
        eps: added to the variance.
        impl: "auto", "fused" (the native operator) or "reference" (plain PyTorch).

    Returns:
        Mean and reciprocal standard deviation, each [N, C]: float64 for float64 features, else float32.

    Raises:
        TypeError: x is not of floating point.
        ValueError: x is not [N, C, H, W] with pixels and channels, or an unknown `impl`.
    """
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating-point tensor, got {x.dtype}")
    if x.ndim != 4 or min(x.shape[1:]) < 1:
        raise ValueError(f"x must be [N, C, H, W] and only the batch may be empty, got shape {tuple(x.shape)}")
    return schema.statistics(x, eps) if _runs_fused(impl, (x,)) else reference.statistics(x, eps)


def _check_kinds(x: Tensor, tensors: dict[str, Tensor]) -> None:
    for name, tensor in {"x": x, **tensors}.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be a floating-point tensor, got {tensor.dtype}")
        if tensor.device != x.device:
            raise ValueError(f"all tensors must be on one device: x is on {x.device}, {name} on {tensor.device}")
    if x.ndim != 4:
        raise ValueError(f"x must be [N, C, H, W], got shape {tuple(x.shape)}")


def _check_shapes(x: Tensor, k: int, j: int, tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    if min(*x.shape[1:], k, j) < 1:
        raise ValueError(f"only the batch may be empty, got x {tuple(x.shape)} with K={k} codes, J={j} rectangles")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name]:
            given = f"x {tuple(x.shape)} with K={k} codes and J={j} rectangles"
            raise ValueError(f"{name} must have shape {expected[name]} for {given}, got {tuple(tensor.shape)}")


def _check_constrict(tensors: ConstrictTensors, given: tuple[Tensor, Tensor] | None) -> None:
    named = {name: tensor for name, tensor in tensors._asdict().items() if tensor is not None and name != "x"}
    if given is not None:
        named |= {"mean": given[0], "rstd": given[1]}
    x, logits = tensors.x, tensors.gate_logits_h
    _check_kinds(x, named)
    if logits.ndim != 5:
        raise ValueError(f"gate_logits_h must be [N, K, J, 2, H], got shape {tuple(logits.shape)}")
    (n, c, h, w), (k, j) = x.shape, logits.shape[1:3]
    expected = {
        "gate_logits_h": (n, k, j, 2, h),
        "gate_logits_w": (n, k, j, 2, w),
        "scale": (n, k, c),
        "bias": (n, k, c),
        "mask_gain": (k,),
        "mean": (n, c),
        "rstd": (n, c),
    }
    _check_shapes(x, k, j, named, expected)


def constrict(
    x: Tensor,  # [N, C, H, W]
    gate_logits_h: Tensor,  # [N, K, J, 2, H]
    gate_logits_w: Tensor,  # [N, K, J, 2, W]
    scale: Tensor,  # [N, K, C]
    bias: Tensor,  # [N, K, C]
    mask_gain: Tensor | None = None,  # [K]
    eps: float = 1e-8,
    impl: str = "auto",
    statistics: tuple[Tensor, Tensor] | None = None,  # [N, C] each
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
        statistics: what `statistics(x, eps)` returned for this x and eps, if that is known: saves a read of x. The
            gradient of x is the whole one all the same, so none flows to these two.

    Returns:
        [N, C, H, W] in the dtype and memory format of `x`.

    Raises:
        TypeError: a tensor is not of floating point.
        ValueError: shapes that do not fit each other, tensors on different devices, an unknown `impl`.

    Source: paper Sec. 3.1; SPEC of the authors' `C_spgroup`. Statistics and gates are computed in float32
    (float64 for float64 features) whatever the dtype of the features.
    """
    tensors = ConstrictTensors(x, gate_logits_h, gate_logits_w, scale, bias, mask_gain)
    _check_constrict(tensors, statistics)
    if not _runs_fused(impl, tensors):
        return reference.constrict(*tensors, eps)
    dtype = compute_dtype(x.dtype)
    tensors = ConstrictTensors._make((x, *(_converted(tensor, dtype) for tensor in tensors[1:])))
    mean, rstd = statistics or schema.statistics(x.detach(), eps)
    return schema.constrict(tensors, mean.detach().to(dtype), rstd.detach().to(dtype), eps)


def _check_layer(tensors: LayerTensors) -> None:
    named = {name: tensor for name, tensor in tensors._asdict().items() if tensor is not None and name != "x"}
    x, weight = tensors.x, tensors.gate_weight_h
    _check_kinds(x, named)
    if weight.ndim != 5:
        raise ValueError(f"gate_weight_h must be [K, J, 2, H, C], got shape {tuple(weight.shape)}")
    (n, c, h, w), (k, j) = x.shape, weight.shape[:2]
    expected = {
        "codes": (n, k),
        "gate_weight_h": (k, j, 2, h, c),
        "gate_weight_w": (k, j, 2, w, c),
        "style_weight": (k, 2, c),
        "style_bias": (k, 2, c),
        "mask_gain": (k,),
    }
    _check_shapes(x, k, j, named, expected)


def spatial_constriction(
    x: Tensor,  # [N, C, H, W]
    codes: Tensor,  # [N, K]
    gate_weight_h: Tensor,  # [K, J, 2, H, C]
    gate_weight_w: Tensor,  # [K, J, 2, W, C]
    style_weight: Tensor,  # [K, 2, C]
    style_bias: Tensor,  # [K, 2, C]
    mask_gain: Tensor | None = None,  # [K]
    eps: float = 1e-8,
    impl: str = "auto",
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole layer: pooling, gate logits, styles and constriction of features by a group of K codes (Eq. 1-7).

    Args:
        x: features [N, C, H, W], float16, bfloat16, float32 or float64, contiguous or channels_last.
        codes: [N, K].
        gate_weight_h: [K, J, 2, H, C], of the logits along the height; see `gate_logits`.
        gate_weight_w: [K, J, 2, W, C].
        style_weight: [K, 2, C]; see `styles`.
        style_bias: [K, 2, C].
        mask_gain: [K], multiplies the masks of each code; None stands for 1.
        eps: added to the variance in the instance norm.
        impl: "auto", "fused" (the native operator) or "reference" (plain PyTorch).

    Returns:
        y [N, C, H, W] in the dtype and memory format of `x`, and the gate logits [N, K, J, 2, H] and [N, K, J, 2, W],
        from which `rectangle_masks` makes the masks; all differentiable.

    Raises:
        TypeError: a tensor is not of floating point.
        ValueError: shapes that do not fit each other, tensors on different devices, an unknown `impl`.

    Source: paper Sec. 3.1; SPEC of the authors' `C_spgroup`.
    """
    tensors = LayerTensors(x, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, mask_gain)
    _check_layer(tensors)
    return run_layer(tensors, eps, impl)


def run_layer(tensors: LayerTensors, eps: float, impl: str) -> tuple[Tensor, Tensor, Tensor]:
    """`spatial_constriction` of tensors that were checked, as those of a layer are.

    Args:
        tensors: features, codes and the parameters of one layer.
        eps: added to the variance in the instance norm.
        impl: "auto", "fused" (the native operator) or "reference" (plain PyTorch).

    Returns:
        y and the gate logits along h and w.
    """
    if not _runs_fused(impl, tensors):
        return reference.constrict_layer(*tensors, eps)
    dtype = compute_dtype(tensors.x.dtype)
    tensors = LayerTensors._make((tensors.x, *(_converted(tensor, dtype) for tensor in tensors[1:])))
    return schema.constrict_layer(tensors, eps)
