"""What the emulated kernels are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from sc_layers.functional import constrict
from tests.ops.emulation.steps import EPS, Tensors
from tests.ops.samples import assert_about_as_exact_as_plain
from tests.tolerances import SAME_FORMULA, assert_close_to_largest

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

    Those that rounding features to half precision touches are held to plain PyTorch in that precision.
    """
    exact = truth(inputs, grad)
    found = {**results, "grad_mask_gain": results["grad_mask_gain"].sum(0)} if "grad_mask_gain" in exact else results
    if inputs["x"].dtype.itemsize == 2:
        rounded = [name for name in exact if name not in ("mean", "rstd")]
        assert_about_as_exact_as_plain([found[name] for name in rounded], [inputs[name] for name in NAMES], grad)
        exact = {name: exact[name] for name in ("mean", "rstd")}
    for name, expected in exact.items():
        assert_close_to_largest(found[name], expected, SAME_FORMULA[found[name].dtype]["rtol"], name)


def results_of(state: Tensors) -> dict[str, Tensor]:
    """What a forward and a backward pass give, without their inputs and scratch memory."""
    return {
        name: tensor
        for name, tensor in state.items()
        if tensor is not None and (name in ("y", "mean", "rstd") or (name.startswith("grad_") and name != "grad_mean"))
    }
