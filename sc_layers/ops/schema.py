"""The operators `sc_layers::*`: schemas, shapes for tracing and derivatives. Native libraries only add their kernels.

    statistics(x, eps) -> (mean, rstd)
    constrict(x, gate_logits_h, gate_logits_w, scale, bias, mask_gain, mean, rstd, eps) -> y
    constrict_layer(x, codes, gate_weight_h, gate_weight_w, style_weight, style_bias, mask_gain, eps)
        -> (y, mean, rstd, gate_logits_h, gate_logits_w)

x is [N, C, H, W] of any floating dtype; everything else is float64 for a float64 x and float32 otherwise. The gates
need the mean of every plane before any pixel of y can exist, so the layer reads x once for its statistics and once more
to constrict it; as one operator it also has the whole gradient of x in one pass. `constrict` is the same under given
logits, and its gradient of x is as whole: mean and rstd, which are those of x, are not differentiated themselves.

Contiguous and channels_last x are read as they lie, other layouts are copied first. y has the layout of what was read.
The backward passes are native too; second and higher derivatives go through the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import reference

Gradients = Sequence[Tensor | None]


class ConstrictTensors(NamedTuple):
    """The tensors of `constrict` that it is differentiated by."""

    x: Tensor  # [N, C, H, W]
    gate_logits_h: Tensor  # [N, K, J, 2, H]
    gate_logits_w: Tensor  # [N, K, J, 2, W]
    scale: Tensor  # [N, K, C]
    bias: Tensor  # [N, K, C]
    mask_gain: Tensor | None  # [K]


class LayerTensors(NamedTuple):
    """The tensors of `constrict_layer`."""

    x: Tensor  # [N, C, H, W]
    codes: Tensor  # [N, K]
    gate_weight_h: Tensor  # [K, J, 2, H, C]
    gate_weight_w: Tensor  # [K, J, 2, W, C]
    style_weight: Tensor  # [K, 2, C]
    style_bias: Tensor  # [K, 2, C]
    mask_gain: Tensor | None  # [K]


def _parameters(tensors: type[ConstrictTensors] | type[LayerTensors]) -> str:
    return ", ".join(f"Tensor{'?' if name == 'mask_gain' else ''} {name}" for name in tensors._fields)


_STATISTICS = "Tensor mean, Tensor rstd"
_LOGITS = "Tensor gate_logits_h, Tensor gate_logits_w"
# A gradient that is not wanted, or of an absent mask_gain, has no elements. That of mask_gain is each sample's share.
SCHEMAS = {
    "statistics": f"(Tensor x, float eps) -> ({_STATISTICS})",
    "constrict": f"({_parameters(ConstrictTensors)}, {_STATISTICS}, float eps) -> Tensor",
    "constrict_backward": f"(Tensor grad, {_parameters(ConstrictTensors)}, {_STATISTICS}, bool wants_x) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    "constrict_layer": f"({_parameters(LayerTensors)}, float eps) -> (Tensor y, {_STATISTICS}, {_LOGITS})",
    # Bit i of `wanted` stands for the i-th tensor of LayerTensors.
    "constrict_layer_backward": "(Tensor grad, Tensor? grad_gate_logits_h, Tensor? grad_gate_logits_w, "
    f"{_parameters(LayerTensors)}, {_STATISTICS}, {_LOGITS}, int wanted) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
}
for _name, _schema in SCHEMAS.items():
    # Exact strides: the layout of the results depends on that of x.
    torch.library.define(
        f"sc_layers::{_name}", _schema, tags=(torch.Tag.pt2_compliant_tag, torch.Tag.needs_exact_strides)
    )


def _like_read(x: Tensor) -> Tensor:
    """A new tensor in the layout in which kernels read `x`: its own where that is native, else contiguous."""
    native = x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)
    return torch.empty_like(x if native else x.contiguous())


def _fake_statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    dtype = reference.compute_dtype(x.dtype)
    return x.new_empty(x.shape[:2], dtype=dtype), x.new_empty(x.shape[:2], dtype=dtype)


def _fake_constrict(x: Tensor, *_: Any) -> Tensor:
    return _like_read(x)


def _fake_constrict_backward(grad: Tensor, *inputs: Any) -> tuple[Tensor, ...]:
    x, *others, gain = ConstrictTensors(*inputs[:6])
    grad_x = _like_read(x) if inputs[-1] else others[0].new_empty(0)
    grad_gain = others[0].new_empty(0 if gain is None else (x.shape[0], *gain.shape))
    return (grad_x, *(t.new_empty(t.shape) for t in others), grad_gain)


def _fake_constrict_layer(*inputs: Any) -> tuple[Tensor, ...]:
    x, codes, weight_h, weight_w, *_ = LayerTensors(*inputs[:7])
    logits = [codes.new_empty((x.shape[0], *weight.shape[:4])) for weight in (weight_h, weight_w)]
    return (_like_read(x), *_fake_statistics(x, inputs[-1]), *logits)


def _fake_constrict_layer_backward(grad: Tensor, grad_h: Tensor | None, grad_w: Tensor | None, *inputs: Any) -> Any:
    tensors, wanted = LayerTensors(*inputs[:7]), inputs[-1]

    def gradient(i: int, tensor: Tensor | None) -> Tensor:
        return tensors.codes.new_empty(0 if tensor is None or not wanted >> i & 1 else tensor.shape)

    grad_x = _like_read(tensors.x) if wanted & 1 else gradient(0, None)
    gain = None if tensors.mask_gain is None else tensors.codes  # a number for every sample and code
    return (grad_x, *(gradient(i, tensor) for i, tensor in enumerate((*tensors[1:6], gain), start=1)))


_FAKES: dict[str, Callable[..., Any]] = {
    "statistics": _fake_statistics,
    "constrict": _fake_constrict,
    "constrict_backward": _fake_constrict_backward,
    "constrict_layer": _fake_constrict_layer,
    "constrict_layer_backward": _fake_constrict_layer_backward,
}
for _name, _fake in _FAKES.items():
    torch.library.register_fake(f"sc_layers::{_name}", _fake)


class _Operator:
    """An operator with its derivatives, for autograd in eager mode and for tracing.

    Args:
        name: inside the namespace `sc_layers`.
        tensors: how many of the leading inputs it is differentiated by.
        differentiable: which outputs have a gradient.
        kept: which outputs the backward pass needs.
        reference: (those inputs..., eps) -> the differentiable outputs, in plain PyTorch.
        native: (context, their gradients, kept inputs and outputs) -> gradients of the inputs, once differentiable.
    """

    def __init__(
        self,
        name: str,
        tensors: int,
        differentiable: tuple[int, ...],
        kept: tuple[int, ...],
        reference: Callable[..., Sequence[Tensor]],
        native: Callable[[Any, Gradients, list[Tensor]], Gradients],
    ) -> None:
        self._run = getattr(torch.ops.sc_layers, name).default
        self._tensors = tensors
        self._differentiable = differentiable
        self._kept = kept
        self._reference = reference
        self._native = native
        self._function = _eager_function(self)
        torch.library.register_autograd(f"sc_layers::{name}", self._backward_of_all, setup_context=self._setup_context)

    def __call__(self, *inputs: Any) -> tuple[Tensor, ...]:
        """The differentiable outputs. Not for functorch transforms or forward-mode differentiation."""
        if not torch.compiler.is_compiling():
            if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in inputs):
                # Not the registered formula, which runs through several layers of Python: 0.15 ms less.
                return self._function.apply(*inputs)  # type: ignore[no-any-return, no-untyped-call]
            with torch._C._AutoDispatchBelowAutograd():
                return self._select(_as_tuple(self._run(*inputs)))
        return self._select(_as_tuple(self._run(*inputs)))

    def run_and_keep(self, ctx: Any, inputs: tuple[Any, ...]) -> tuple[Tensor, ...]:
        """The differentiable outputs from the kernel, and in `ctx` what their gradients need."""
        with torch._C._AutoDispatchBelowAutograd():
            outputs = _as_tuple(self._run(*inputs))
        self._keep(ctx, inputs, outputs)
        return self._select(outputs)

    def backward(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of all inputs, those that are not tensors included, from those of the differentiable outputs."""
        kept = list(ctx.saved_tensors)
        found: Gradients = (None,) * self._tensors
        if any(grad is not None for grad in grads):
            find = self._through_reference if torch.is_grad_enabled() else self._native
            found = find(ctx, grads, kept)
        wanted = ctx.needs_input_grad
        grads_of_tensors = (grad if want else None for grad, want in zip(found, wanted, strict=False))
        return (*grads_of_tensors, *(None,) * (len(wanted) - self._tensors))

    def _select(self, outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(outputs[i] for i in self._differentiable)

    def _keep(self, ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
        *tensors, ctx.eps = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors, *(outputs[i] for i in self._kept))

    def _setup_context(self, ctx: Any, inputs: tuple[Any, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        outputs = _as_tuple(output)
        ctx.mark_non_differentiable(*(y for i, y in enumerate(outputs) if i not in self._differentiable))
        self._keep(ctx, inputs, outputs)

    def _backward_of_all(self, ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return self.backward(ctx, *(grads[i] for i in self._differentiable))

    def _through_reference(self, ctx: Any, grads: Gradients, kept: list[Tensor]) -> Gradients:
        # The saved tensors may depend on each other (logits on x): a gradient with respect to a saved tensor itself
        # would take in those paths too. Aliases have only the paths inside this operator.
        aliases = [None if tensor is None else tensor.view_as(tensor) for tensor in kept[: self._tensors]]
        wanted = {i: alias for i, alias in enumerate(aliases) if alias is not None and ctx.needs_input_grad[i]}
        outputs = self._reference(*aliases, ctx.eps)
        pairs = [(y, grad) for y, grad in zip(outputs, grads, strict=True) if grad is not None and y.requires_grad]
        if not pairs:
            return [None] * len(aliases)
        results, weights = zip(*pairs, strict=True)
        found = torch.autograd.grad(results, list(wanted.values()), weights, create_graph=True, allow_unused=True)
        by_input = dict(zip(wanted, found, strict=True))
        return [by_input.get(i) for i in range(len(aliases))]


def _as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def _eager_function(operator: _Operator) -> type[torch.autograd.Function]:
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
            return operator.run_and_keep(ctx, inputs)

        @staticmethod
        def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
            return operator.backward(ctx, *grads)

    return Function


def _statistics_backward(ctx: Any, grads: Gradients, kept: list[Tensor]) -> Gradients:
    x, mean, rstd = kept
    grad_mean, grad_rstd = (torch.zeros_like(mean) if grad is None else grad for grad in grads)
    # d rstd / dx = -rstd^3 (x - mean) / pixels, since the deviations from the mean sum to 0.
    slope = (-grad_rstd * rstd**3)[:, :, None, None] * (x - mean[:, :, None, None])
    return [((slope + grad_mean[:, :, None, None]) / (x.shape[2] * x.shape[3])).to(x.dtype)]


def _with_summed_gain(ctx: Any, grads: Sequence[Tensor]) -> Gradients:
    *rest, gain = grads
    return [*rest, gain.sum(0) if ctx.needs_input_grad[len(rest)] else None]


def _constrict_backward(ctx: Any, grads: Gradients, kept: list[Tensor]) -> Gradients:
    found = torch.ops.sc_layers.constrict_backward.default(*grads, *kept, ctx.needs_input_grad[0])
    return _with_summed_gain(ctx, found)


def _layer_backward(ctx: Any, grads: Gradients, kept: list[Tensor]) -> Gradients:
    grad_y, *grad_logits = grads
    wanted = sum(1 << i for i, need in enumerate(ctx.needs_input_grad) if need)
    grad_y = torch.zeros_like(kept[0]) if grad_y is None else grad_y
    found = torch.ops.sc_layers.constrict_layer_backward.default(grad_y, *grad_logits, *kept, wanted)
    return _with_summed_gain(ctx, found)


def _constrict_reference(*inputs: Any) -> tuple[Tensor, ...]:
    return (reference.constrict(*inputs),)


_statistics = _Operator("statistics", 1, (0, 1), (0, 1), reference.statistics, _statistics_backward)
_constrict = _Operator("constrict", 6, (0,), (), _constrict_reference, _constrict_backward)
_constrict_layer = _Operator("constrict_layer", 7, (0, 3, 4), (1, 2, 3, 4), reference.constrict_layer, _layer_backward)


def statistics(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and `1 / sqrt(var + eps)` of every plane of x [N, C, H, W], differentiable: two tensors [N, C]."""
    mean, rstd = _statistics(x, eps)
    return mean, rstd


def constrict(tensors: ConstrictTensors, mean: Tensor, rstd: Tensor, eps: float) -> Tensor:
    """y under given logits and styles, differentiable by `tensors`; mean and rstd must be those of x with this eps."""
    (y,) = _constrict(*tensors, mean, rstd, eps)
    return y


def constrict_layer(tensors: LayerTensors, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y and both gate logits of the whole layer, differentiable by `tensors`; eps is that of the instance norm."""
    y, gate_logits_h, gate_logits_w = _constrict_layer(*tensors, eps)
    return y, gate_logits_h, gate_logits_w
