"""Spatial constriction as PyTorch modules (paper, Fig. 2)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from . import functional as F
from .ops import loading
from .ops.schema import LayerTensors


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ValueError(f"size must be positive, got {size!r}")
    return int(height), int(width)


class _InUnitInterval(torch.autograd.Function):
    """Clamping to [0, 1] that can be learned across: only a gradient that leads further outside is dropped.

    `torch.clamp` has gradient 0 outside, where a parameter that starts at 0 would stay for ever after one wrong step.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(value: Tensor) -> Tensor:
        return value.clamp(0.0, 1.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (value,), (grad,) = ctx.saved_tensors, grads
        return grad.masked_fill(((value < 0) & (grad > 0)) | ((value > 1) & (grad < 0)), 0)


class _Constriction(nn.Module):
    """What both kinds of constriction share: the style of every code, and the checks of the input."""

    def __init__(self, in_channels: int, size: int | tuple[int, int], num_codes: int, eps: float) -> None:
        super().__init__()
        for name, value in {"in_channels": in_channels, "num_codes": num_codes}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.in_channels = in_channels
        self.size = _pair(size)
        self.num_codes = num_codes
        self.eps = eps
        self.style_weight = nn.Parameter(torch.randn(num_codes, 2, in_channels))
        self.style_bias = nn.Parameter(torch.zeros(num_codes, 2, in_channels))

    def styles(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Style of every code (f in Eq. 6), see `functional.styles`.

        Args:
            codes: [N, K].

        Returns:
            Scale and bias, each [N, K, C].
        """
        return F.styles(codes.to(self.style_weight.dtype), self.style_weight, self.style_bias)

    def check_input(self, x: Tensor, codes: Tensor) -> None:
        """Refuse what the layer was not made for.

        Args:
            x: features, which must be [N, C, H, W].
            codes: which must be [N, K].

        Raises:
            ValueError: another shape or device.
            TypeError: not of floating point.
        """
        expected = (self.in_channels, *self.size)
        if x.ndim != 4 or tuple(x.shape[1:]) != expected:
            raise ValueError(
                f"{type(self).__name__} was made for features [N, {', '.join(map(str, expected))}], "
                f"got shape {tuple(x.shape)}"
            )
        if codes.ndim != 2 or codes.shape[1] != self.num_codes or codes.shape[0] != x.shape[0]:
            raise ValueError(
                f"codes must have shape ({x.shape[0]}, {self.num_codes}) for this batch and layer, "
                f"got {tuple(codes.shape)}"
            )
        if not (x.is_floating_point() and codes.is_floating_point()):
            raise TypeError(f"features and codes must be of floating point, got {x.dtype} and {codes.dtype}")
        if not x.device == codes.device == self.style_weight.device:
            raise ValueError(
                f"features, codes and layer must be on one device, got {x.device}, {codes.device} and "
                f"{self.style_weight.device}"
            )

    def extra_repr(self) -> str:
        """Arguments of the layer, for its text."""
        return f"{self.in_channels}, size={self.size}, num_codes={self.num_codes}, eps={self.eps}"


class SpatialConstriction(_Constriction):
    """A group of K codes, each acting on the features inside its own learned region (Eq. 1-7).

    Every code's region is the mean of J soft rectangles whose sides are linear functions of the average-pooled
    features. Inside, the features are instance-normalised and given the code's scale and bias; outside they stay.

    Args:
        in_channels: channels C of the features.
        size: height and width of the features, an int for square ones.
        num_codes: codes K in the group; they share one instance norm and are applied in order (K=1 is the paper's
            module to the letter).
        num_rects: rectangles J a code.
        eps: what is added to the variance of a plane before its root is taken.
        impl: "auto", "fused" or "reference", see `functional.spatial_constriction`.
        mask_gain: None, or the initial value of a learned gain [K] on the masks, which acts clamped to [0, 1]. With 0
            the layer starts as the identity, bit for bit, and still learns: this is how it enters a pretrained
            generator.

    Shapes:
        x [N, C, H, W], codes [N, K] -> [N, C, H, W]; with `return_masks=True` also the masks [N, K, H, W], which are
        differentiable and at the size of the features.

    Source: paper Sec. 3.1; the authors' `C_spgroup-J-K`.
    """

    mask_gain: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        size: int | tuple[int, int],
        num_codes: int = 1,
        num_rects: int = 4,
        eps: float = 1e-8,
        impl: str = "auto",
        *,
        mask_gain: float | None = None,
    ) -> None:
        super().__init__(in_channels, size, num_codes, eps)
        if num_rects < 1:
            raise ValueError(f"num_rects must be at least 1, got {num_rects}")
        loading.prepare(impl)
        self.num_rects = num_rects
        self.impl = impl
        height, width = self.size
        self.gate_weight_h = nn.Parameter(torch.randn(num_codes, num_rects, 2, height, in_channels))
        self.gate_weight_w = nn.Parameter(torch.randn(num_codes, num_rects, 2, width, in_channels))
        gain = None if mask_gain is None else nn.Parameter(torch.full((num_codes,), float(mask_gain)))
        self.register_parameter("mask_gain", gain)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Module.to(memory_format=channels_last) takes every parameter of five dimensions for that of a 3-D
        # convolution and fails on the gates' weights, so they go through as matrices.
        def apply_to_matrix(tensor: Tensor) -> Tensor:
            return fn(tensor.flatten(0, 3)).unflatten(0, tensor.shape[:4]) if tensor.ndim == 5 else fn(tensor)

        return super()._apply(apply_to_matrix, recurse)  # type: ignore[no-untyped-call]

    def gain(self) -> Tensor | None:
        """Factors [K] in [0, 1] on the masks, or None for 1."""
        return None if self.mask_gain is None else _InUnitInterval.apply(self.mask_gain)  # type: ignore[no-untyped-call]

    def masks(self, x: Tensor) -> Tensor:
        """Masks [N, K, H, W] in [0, 1] that features x [N, C, H, W] give, gain included (Eq. 1-5)."""
        return self._masks(*self._logits(x), self.gain())

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The gates of every rectangle that features give (Eq. 3); gain is not in them.

        Args:
            x: features [N, C, H, W].

        Returns:
            Over rows [N, K, J, H], and over columns [N, K, J, W], both in [0, 1].
        """
        with F.without_autocast(x.device.type):
            gates = [F.band_gate(logits[:, :, :, 0], logits[:, :, :, 1]) for logits in self._logits(x)]
        return gates[0], gates[1]

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with F.without_autocast(x.device.type):
            mean, _ = F.statistics(x, self.eps, self.impl)
            weights = (self.gate_weight_h.to(mean.dtype), self.gate_weight_w.to(mean.dtype))
            return F.gate_logits(mean, weights[0]), F.gate_logits(mean, weights[1])

    def _masks(self, logits_h: Tensor, logits_w: Tensor, gain: Tensor | None) -> Tensor:
        with F.without_autocast(logits_h.device.type):
            masks = F.rectangle_masks(logits_h, logits_w)
            return masks if gain is None else masks * gain[:, None, None]

    @overload
    def forward(self, x: Tensor, codes: Tensor, return_masks: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, codes: Tensor, return_masks: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(self, x: Tensor, codes: Tensor, return_masks: bool) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,  # [N, C, H, W]
        codes: Tensor,  # [N, K]
        return_masks: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let every code act on the features inside its own region (Eq. 1-7).

        Args:
            x: features [N, C, H, W] of the size that the layer was made for, of any floating dtype, contiguous or
                channels_last.
            codes: [N, K].
            return_masks: whether to return the masks too.

        Returns:
            [N, C, H, W] in the dtype and memory format of `x`; with `return_masks` also the masks [N, K, H, W].

        Raises:
            ValueError: features or codes of another shape, or on another device than the layer.
            TypeError: features or codes that are not of floating point.
        """
        self.check_input(x, codes)
        gain = self.gain()
        parameters = (self.gate_weight_h, self.gate_weight_w, self.style_weight, self.style_bias, gain)
        y, logits_h, logits_w = F.run_layer(LayerTensors(x, codes, *parameters), self.eps, self.impl)
        return (y, self._masks(logits_h, logits_w, gain)) if return_masks else y

    def extra_repr(self) -> str:
        """Arguments of the layer, for its text."""
        gain = "" if self.mask_gain is None else ", mask_gain"
        return f"{super().extra_repr()}, num_rects={self.num_rects}, impl={self.impl!r}{gain}"


class SoftmaxConstriction(_Constriction):
    """The paper's ablation: each code's mask is a softmax over all pixels (Sec. 4.3), otherwise as above.

    Args:
        in_channels: channels C of the features.
        size: height and width of the features, an int for square ones.
        num_codes: codes K in the group.
        eps: what is added to the variance of a plane before its root is taken.

    Shapes:
        x [N, C, H, W], codes [N, K] -> [N, C, H, W]; with `return_masks=True` also the masks [N, K, H, W].

    Source: the authors' `C_spgroup_sm-K`: a 3x3 convolution without bias, then the softmax.
    """

    def __init__(self, in_channels: int, size: int | tuple[int, int], num_codes: int = 1, eps: float = 1e-8) -> None:
        super().__init__(in_channels, size, num_codes, eps)
        self.mask_weight = nn.Parameter(torch.randn(num_codes, in_channels, 3, 3))

    def masks(self, x: Tensor) -> Tensor:
        """Masks of features, each of which sums to 1 over its pixels (Sec. 4.3).

        Args:
            x: features [N, C, H, W].

        Returns:
            [N, K, H, W], float64 for float64 features or weights, else float32.
        """
        with F.without_autocast(x.device.type):
            dtype = torch.promote_types(F.compute_dtype(x.dtype), self.mask_weight.dtype)
            weight = self.mask_weight.to(dtype) / math.sqrt(9 * self.in_channels)
            logits = nn.functional.conv2d(x.to(dtype), weight, padding=1)
            return logits.flatten(2).softmax(2).unflatten(2, self.size)

    @overload
    def forward(self, x: Tensor, codes: Tensor, return_masks: Literal[False] = ...) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, codes: Tensor, return_masks: Literal[True]) -> tuple[Tensor, Tensor]: ...
    @overload
    def forward(self, x: Tensor, codes: Tensor, return_masks: bool) -> Tensor | tuple[Tensor, Tensor]: ...
    def forward(
        self,
        x: Tensor,  # [N, C, H, W]
        codes: Tensor,  # [N, K]
        return_masks: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let every code act on the features as its mask says (Eq. 6-7).

        Args:
            x: features [N, C, H, W] of the size that the layer was made for, of any floating dtype, contiguous or
                channels_last.
            codes: [N, K].
            return_masks: whether to return the masks too.

        Returns:
            [N, C, H, W] in the dtype and memory format of `x`; with `return_masks` also the masks [N, K, H, W].

        Raises:
            ValueError: features or codes of another shape, or on another device than the layer.
            TypeError: features or codes that are not of floating point.
        """
        self.check_input(x, codes)
        masks = self.masks(x)
        scale, bias = self.styles(codes)
        with F.without_autocast(x.device.type):
            y = F.blend(x, masks, scale, bias, self.eps)
        return (y, masks) if return_masks else y
