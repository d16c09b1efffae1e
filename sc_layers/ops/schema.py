"""The operator `sc_layers::constrict`: schema, shapes and derivatives. Native libraries only add its kernels.

    constrict(x, gate_logits_h, gate_logits_w, scale, bias, mask_gain, eps) -> (y, mean, rstd)

with x [N, C, H, W] of any floating dtype, and everything else float64 for a float64 x and float32 otherwise:
gate logits [N, K, J, 2, H] and [N, K, J, 2, W], scale and bias [N, K, C], mask_gain [K] or None. mean and rstd
[N, C] are the statistics of the instance norm, kept for the backward pass and not differentiable.

Contiguous and channels_last x are read as they lie, other layouts are copied first. y has the layout of what
was read. The backward pass is native too; second and higher derivatives go through the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Reference = Callable[..., Tensor]

_INPUTS = "Tensor x, Tensor gate_logits_h, Tensor gate_logits_w, Tensor scale, Tensor bias, Tensor? mask_gain"
SCHEMAS = {
    "constrict": f"({_INPUTS}, float eps) -> (Tensor y, Tensor mean, Tensor rstd)",
    # The gradient of an absent mask_gain is a tensor of no elements.
    "constrict_backward": f"(Tensor grad, {_INPUTS}, Tensor mean, Tensor rstd) -> (Tensor grad_x, "
    "Tensor grad_gate_logits_h, Tensor grad_gate_logits_w, Tensor grad_scale, Tensor grad_bias, "
    "Tensor grad_mask_gain)",
}
_NUM_DIFFERENTIABLE = 6


def _as_read(x: Tensor) -> Tensor:
    """`x` as the kernels read it: itself where that layout is native, else a contiguous copy."""
    return x if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


def _fake_constrict(
    x: Tensor,
    gate_logits_h: Tensor,
    gate_logits_w: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask_gain: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.shape[:2]
    return torch.empty_like(_as_read(x)), scale.new_empty(statistics), scale.new_empty(statistics)


def _fake_constrict_backward(
    grad: Tensor,
    x: Tensor,
    gate_logits_h: Tensor,
    gate_logits_w: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask_gain: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
) -> tuple[Tensor, ...]:
    others = (gate_logits_h, gate_logits_w, scale, bias)
    grad_gain = scale.new_empty((0,) if mask_gain is None else mask_gain.shape)
    return (torch.empty_like(_as_read(x)), *(t.new_empty(t.shape) for t in others), grad_gain)


class _Derivative:
    """The derivatives of `constrict`; the second and higher ones by way of the reference in plain PyTorch."""

    reference: Reference | None = None

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        _Derivative.keep(ctx, inputs, mean, rstd)

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], mean: Tensor, rstd: Tensor) -> None:
        *tensors, ctx.eps = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, mean, rstd)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * (_NUM_DIFFERENTIABLE + 1)
        *tensors, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*_Derivative._through_reference(ctx, tensors, grad_y), None)
        grads = torch.ops.sc_layers.constrict_backward.default(grad_y, *tensors, mean, rstd)
        wanted = ctx.needs_input_grad[:_NUM_DIFFERENTIABLE]
        return (*(grad if want else None for grad, want in zip(grads, wanted, strict=True)), None)

    @staticmethod
    def _through_reference(ctx: Any, tensors: list[Tensor | None], grad_y: Tensor) -> list[Tensor | None]:
        assert _Derivative.reference is not None
        # The saved tensors may depend on each other (the gate logits on x): a gradient with respect to a saved
        # tensor itself would take in those paths too. Aliases have only the paths inside this operator.
        aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        wanted = {i: alias for i, alias in enumerate(aliases) if alias is not None and ctx.needs_input_grad[i]}
        y = _Derivative.reference(*aliases, ctx.eps)
        found = torch.autograd.grad(y, list(wanted.values()), grad_y, create_graph=True)
        grads = dict(zip(wanted, found, strict=True))
        return [grads.get(i) for i in range(len(aliases))]


class _EagerConstrict(torch.autograd.Function):
    """The same derivatives without the layers of Python that a registered formula runs through: 0.15 ms less."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        y, mean, rstd = _run_kernel(inputs)
        _Derivative.keep(ctx, inputs, mean, rstd)
        return y

    backward = staticmethod(_Derivative.backward)


def _run_kernel(inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        result: tuple[Tensor, Tensor, Tensor] = torch.ops.sc_layers.constrict.default(*inputs)
    return result


def constrict(
    x: Tensor,
    gate_logits_h: Tensor,
    gate_logits_w: Tensor,
    scale: Tensor,
    bias: Tensor,
    mask_gain: Tensor | None,
    eps: float,
) -> Tensor:
    """y of the operator, differentiable. Not for functorch transforms or forward-mode differentiation."""
    inputs = (x, gate_logits_h, gate_logits_w, scale, bias, mask_gain, eps)
    if torch.compiler.is_compiling():
        y: Tensor = torch.ops.sc_layers.constrict.default(*inputs)[0]
        return y
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in inputs[:-1]):
        y = _EagerConstrict.apply(*inputs)
        return y
    return _run_kernel(inputs)[0]


for _name, _schema in SCHEMAS.items():
    # Exact strides: the layout of the results depends on that of x.
    torch.library.define(
        f"sc_layers::{_name}", _schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    )
torch.library.register_fake("sc_layers::constrict", _fake_constrict)
torch.library.register_fake("sc_layers::constrict_backward", _fake_constrict_backward)


torch.library.register_autograd("sc_layers::constrict", _Derivative.backward, setup_context=_Derivative.setup_context)


def register_reference(reference: Reference) -> None:
    """Give the operator the same formula in plain PyTorch, (inputs..., eps) -> y, for second and higher derivatives."""
    _Derivative.reference = staticmethod(reference)
