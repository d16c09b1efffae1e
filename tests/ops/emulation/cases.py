"""What the emulated kernels are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from sc_layers.functional import constrict
from tests.ops.emulation.steps import EPS, Tensors
from tests.tolerances import SAME_FORMULA

NAMES = ("x", "gate_logits_h", "gate_logits_w", "scale", "bias", "mask_gain")


def truth(inputs: Tensors, grad: Tensor) -> dict[str, Tensor]:
    """y, mean, rstd and all gradients by the reference in float64."""
    leaves = [None if inputs[name] is None else inputs[name].double().requires_grad_() for name in NAMES]
    y = constrict(*leaves, EPS, "reference")
    given = [leaf for leaf in leaves if leaf is not None]
    names = [f"grad_{name}" for name, leaf in zip(NAMES, leaves, strict=True) if leaf is not None]
    x = inputs["x"].double()
    variance = x.var((2, 3), unbiased=False)
    return {
        "y": y.detach(),
        "mean": x.mean((2, 3)),
        "rstd": (variance + EPS).rsqrt(),
        **dict(zip(names, torch.autograd.grad(y, given, grad.double()), strict=True)),
    }


def assert_matches_truth(inputs: Tensors, results: Tensors, grad: Tensor) -> None:
    """Every result deviates from float64 by no more than rounding, relative to its largest entry.

    Sums of products with dL/dy round these products to the type of the features.
    """
    for name, expected in truth(inputs, grad).items():
        actual = results[name].sum(0) if name == "grad_mask_gain" else results[name]
        kind = inputs["x"].dtype if name.startswith("grad_") else actual.dtype
        tolerance = SAME_FORMULA[kind]["rtol"]
        deviation = ((actual.double() - expected).abs().max() / expected.abs().max().clamp_min(1)).item()
        assert deviation <= tolerance, f"{name} deviates by {deviation:.1e} of its largest entry"


def results_of(state: Tensors) -> dict[str, Tensor]:
    """What a forward and a backward pass give, without their inputs and scratch memory."""
    return {
        name: tensor
        for name, tensor in state.items()
        if tensor is not None and (name in ("y", "mean", "rstd") or (name.startswith("grad_") and name != "grad_mean"))
    }
