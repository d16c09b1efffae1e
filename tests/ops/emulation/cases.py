"""What the emulated kernels are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from sc_layers.functional import _constrict_reference
from tests.ops.emulation.harness import Emulator, Run, make_gradient
from tests.tolerances import SAME_FORMULA

NAMES = ("x", "logits_h", "logits_w", "scale", "bias", "gain")


def truth(inputs: dict[str, Tensor | None], grad: Tensor, eps: float = 1e-8) -> dict[str, Tensor]:
    """y, mean, rstd and all gradients by the reference in float64."""
    leaves = [None if inputs[name] is None else inputs[name].double().requires_grad_() for name in NAMES]
    y = _constrict_reference(*leaves, eps)
    given = [leaf for leaf in leaves if leaf is not None]
    names = [f"grad_{name}" for name, leaf in zip(NAMES, leaves, strict=True) if leaf is not None]
    x = inputs["x"].double()
    variance = x.var((2, 3), unbiased=False)
    return {
        "y": y.detach(),
        "mean": x.mean((2, 3)),
        "rstd": (variance + eps).rsqrt(),
        **dict(zip(names, torch.autograd.grad(y, given, grad.double()), strict=True)),
    }


def run_both(emulator: Emulator, inputs: dict[str, Tensor | None], device, **how) -> tuple[Run, Run, Tensor]:
    """The forward and the backward call of `inputs`, and the gradient that went into the latter."""
    grad = make_gradient(inputs)
    forward = emulator.forward(inputs, device, **how)
    statistics = {"mean": forward["mean"], "rstd": forward["rstd"]}
    return forward, emulator.backward({"grad": grad, **inputs, **statistics}, device, **how), grad


def assert_matches_truth(inputs: dict[str, Tensor | None], forward: Run, backward: Run, grad: Tensor) -> None:
    """Every result deviates from float64 by no more than rounding, relative to its largest entry."""
    expected = truth(inputs, grad)
    for name, actual in {**forward.results, **backward.results}.items():
        tolerance = SAME_FORMULA[actual.dtype]["rtol"]
        largest = expected[name].abs().max().clamp_min(1)
        deviation = ((actual.double() - expected[name]).abs().max() / largest).item()
        assert deviation <= tolerance, f"{name} deviates by {deviation:.1e} of its largest entry"
