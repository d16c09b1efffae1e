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

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *tensors, ctx.eps = inputs
        _, mean, rstd = output
        ctx.mark_non_differentiable(mean, rstd)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, mean, rstd)

    def backward(self, ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * (_NUM_DIFFERENTIABLE + 1)
        *tensors, mean, rstd = ctx.saved_tensors
        if torch.is_grad_enabled():
            return (*self._through_reference(ctx, tensors, grad_y), None)
        grads = torch.ops.sc_layers.constrict_backward(grad_y, *tensors, mean, rstd)
        wanted = ctx.needs_input_grad[:_NUM_DIFFERENTIABLE]
        return (*(grad if want else None for grad, want in zip(grads, wanted, strict=True)), None)

    def _through_reference(self, ctx: Any, tensors: list[Tensor | None], grad_y: Tensor) -> list[Tensor | None]:
        # The saved tensors may depend on each other (the gate logits on x): a gradient with respect to a saved
        # tensor itself would take in those paths too. Aliases have only the paths inside this operator.
        aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in tensors]
        wanted = {i: alias for i, alias in enumerate(aliases) if alias is not None and ctx.needs_input_grad[i]}
        y = self.reference(*aliases, ctx.eps)
        found = torch.autograd.grad(y, list(wanted.values()), grad_y, create_graph=True)
        grads = dict(zip(wanted, found, strict=True))
        return [grads.get(i) for i in range(len(aliases))]


for _name, _schema in SCHEMAS.items():
    # Exact strides: the layout of the results depends on that of x.
    torch.library.define(
        f"sc_layers::{_name}", _schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    )
torch.library.register_fake("sc_layers::constrict", _fake_constrict)
torch.library.register_fake("sc_layers::constrict_backward", _fake_constrict_backward)


def register_derivative(reference: Reference) -> None:
    """Make the operator differentiable; `reference` is the same formula in plain PyTorch: (inputs..., eps) -> y."""
    derivative = _Derivative(reference)
    torch.library.register_autograd("sc_layers::constrict", derivative.backward, setup_context=derivative.setup_context)
