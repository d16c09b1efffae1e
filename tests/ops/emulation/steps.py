"""The steps of a compiled CUDA backend, called on tensors through ctypes: emulated on the CPU, or real on a card."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

Tensors = Mapping[str, "Tensor | None"]

SCALARS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}  # as in constrict.h
EPS = 1e-8


class Shape(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in "nchwkj"),
        ("scalar", ctypes.c_int),
        ("channels_last", ctypes.c_bool),
    )


class Device(ctypes.Structure):
    _fields_ = (("multiprocessors", ctypes.c_int),)


def _pointers(*names: str) -> tuple[tuple[str, type], ...]:
    return tuple((name, ctypes.c_void_p) for name in names)


GROUP = ("mean", "rstd", "gate_logits_h", "gate_logits_w", "scale", "bias", "mask_gain")
ADDED = ("added_gate_logits_h", "added_gate_logits_w")
# Fields of the structs of constrict.h, in order; the first of each pair are inputs, the others results.
STEPS = {
    "statistics": (("x",), ("mean", "rstd")),
    "styles": (("codes", "style_weight", "style_bias"), ("scale", "bias")),
    "styles_backward": (
        ("codes", "style_weight", "grad_scale", "grad_bias"),
        ("grad_codes", "grad_style_weight", "grad_style_bias"),
    ),
    "apply": ((*GROUP, "x"), ("y",)),
    "backward_sums": (
        (*GROUP, "grad", "x", *ADDED),
        ("grad_gate_logits_h", "grad_gate_logits_w", "grad_scale", "grad_bias", "grad_mask_gain"),
    ),
    "backward_input": ((*GROUP, "grad", "x", "grad_scale", "grad_bias", "grad_mean"), ("grad_x",)),
}
WORKSPACES = {
    "statistics": "statistics_bytes",
    "apply": "apply_bytes",
    "backward_sums": "backward_bytes",
    "backward_input": "backward_bytes",
}


def _call_type(step: str) -> type[ctypes.Structure]:
    inputs, results = STEPS[step]
    fields = [("shape", Shape), *_pointers(*inputs)]
    if step == "statistics":
        fields.append(("eps", ctypes.c_double))
    fields += _pointers(*results)
    if step in WORKSPACES:
        fields += _pointers("workspace")
    return type(step, (ctypes.Structure,), {"_fields_": tuple(fields)})


CALLS = {step: _call_type(step) for step in STEPS}


class StepError(RuntimeError):
    """A step could not be launched, or broke a rule of the emulated machine."""


def shape_of(x: Tensor, k: int = 0, j: int = 0) -> Shape:
    """The shape of features x [N, C, H, W] that lie as [N, C, H, W] or, if not contiguous, as [N, H, W, C]."""
    channels_last = not x.is_contiguous()
    assert not channels_last or x.is_contiguous(memory_format=torch.channels_last)
    return Shape(*x.shape, k, j, SCALARS[x.dtype], channels_last)


class Steps:
    """The steps of one library. `multiprocessors`: of the card, which sizes of launches follow."""

    def __init__(self, library: Path, multiprocessors: int) -> None:
        self.library = ctypes.CDLL(str(library))
        self.device = Device(multiprocessors)
        for step in STEPS:
            getattr(self.library, f"step_{step}").restype = ctypes.c_char_p
        for name in WORKSPACES.values():
            getattr(self.library, name).restype = ctypes.c_size_t

    def workspace(self, step: str, shape: Shape, like: Tensor) -> Tensor:
        """Scratch memory for a step, on the device of `like`, all bytes 255: NaN in every floating type."""
        size = getattr(self.library, WORKSPACES[step])(ctypes.byref(shape), ctypes.byref(self.device))
        return torch.full((size,), 255, dtype=torch.uint8, device=like.device)

    def call(self, step: str, shape: Shape, tensors: Tensors, stream: int = 0) -> None:
        """Launch a step on the inputs, results and workspace in `tensors`; absent ones are null pointers."""
        call = CALLS[step](shape=shape)
        if step == "statistics":
            call.eps = EPS
        for name, _ in CALLS[step]._fields_:
            tensor = tensors.get(name)
            if tensor is not None:
                setattr(call, name, tensor.data_ptr())
        error = getattr(self.library, f"step_{step}")(
            ctypes.byref(call), ctypes.byref(self.device), ctypes.c_void_p(stream)
        )
        if error is not None:
            raise StepError(f"{step}: {error.decode()}")

    def run(self, step: str, shape: Shape, tensors: Tensors) -> dict[str, Tensor]:
        """`tensors` with the results of a step, which start as NaN, and its workspace if none was there."""
        new = {name: empty for name in STEPS[step][1] if (empty := _result(name, shape, tensors)) is not None}
        all_tensors = {**tensors, **new}
        if step in WORKSPACES and (step != "backward_input" or "workspace" not in tensors):
            all_tensors["workspace"] = self.workspace(step, shape, next(iter(new.values())))
        self.call(step, shape, all_tensors)
        return all_tensors

    def forward(self, inputs: Tensors) -> dict[str, Tensor]:
        """Statistics and y for x, gate_logits_h, gate_logits_w, scale, bias and mask_gain (or None)."""
        shape = shape_of(inputs["x"], *inputs["gate_logits_h"].shape[1:3])
        return self.run("apply", shape, self.run("statistics", shape, inputs))

    def backward(self, state: Tensors, grad: Tensor, **others: Tensor) -> dict[str, Tensor]:
        """Gradients of what `forward` took, from dL/dy; `others`: added_gate_logits_h/w, grad_mean."""
        shape = shape_of(state["x"], *state["gate_logits_h"].shape[1:3])
        state = self.run("backward_sums", shape, {**state, "grad": grad, **others})
        return self.run("backward_input", shape, state)


def _result(name: str, shape: Shape, tensors: Tensors) -> Tensor | None:
    """An unwritten tensor for a result: as what it is the gradient of, or else by its name."""
    x = tensors.get("x")
    if name in ("mean", "rstd"):
        dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
        return torch.full(x.shape[:2], float("nan"), dtype=dtype, device=x.device)
    if name == "y":
        return torch.full_like(x, float("nan"))
    if name in ("scale", "bias"):
        return tensors["codes"].new_full((shape.n, shape.k, shape.c), float("nan"))
    if name == "grad_mask_gain":
        gain = tensors["mask_gain"]
        return None if gain is None else gain.new_full((shape.n, shape.k), float("nan"))
    like = tensors["style_weight"] if name == "grad_style_bias" else tensors[name.removeprefix("grad_")]
    return torch.full_like(like, float("nan"))
