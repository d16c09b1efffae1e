"""Inputs for the tests of the fused operator, and what half precision results are held to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sc_layers import functional as F

EPS = 1e-8


Size = tuple[int, ...]


def _drawn(
    sizes: Sequence[Size], dtype: torch.dtype, gain: bool, layout: torch.memory_format, requires_grad: bool, seed: int
) -> list[Tensor | None]:
    """Random tensors of the sizes: x in `dtype`, all others in the dtype that it is computed in, the last a gain.

    All are exact in `dtype`, so that one truth holds for the operator and for plain PyTorch in `dtype`.
    """
    generator = torch.Generator().manual_seed(seed)
    x, *others, mask_gain = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    # Logits, and the weights that make them, are the five-dimensional ones: large enough for gates with edges.
    others = [2 * tensor if tensor.ndim == 5 else tensor for tensor in others]
    features = (1 + 2 * x).to(dtype).contiguous(memory_format=layout)
    computed = [tensor.to(dtype).to(F.compute_dtype(dtype)) for tensor in (*others, 0.5 + mask_gain.abs())]
    result = [tensor.requires_grad_(requires_grad) for tensor in (features, *computed)]
    return result if gain else [*result[:-1], None]


def sample_inputs(
    n: int = 2,
    c: int = 5,
    h: int = 6,
    w: int = 7,
    k: int = 3,
    j: int = 2,
    *,
    dtype: torch.dtype = torch.float32,
    gain: bool = True,
    memory_format: torch.memory_format = torch.contiguous_format,
    requires_grad: bool = True,
    seed: int = 0,
) -> list[Tensor | None]:
    """Arguments of `constrict` up to `eps`."""
    sizes = [(n, c, h, w), (n, k, j, 2, h), (n, k, j, 2, w), (n, k, c), (n, k, c), (k,)]
    return _drawn(sizes, dtype, gain, memory_format, requires_grad, seed)


def layer_inputs(
    n: int = 2,
    c: int = 5,
    h: int = 6,
    w: int = 7,
    k: int = 3,
    j: int = 2,
    *,
    dtype: torch.dtype = torch.float32,
    gain: bool = True,
    memory_format: torch.memory_format = torch.contiguous_format,
    requires_grad: bool = True,
    seed: int = 0,
) -> list[Tensor | None]:
    """Arguments of `constrict_layer` up to `eps`."""
    sizes = [(n, c, h, w), (n, k), (k, j, 2, h, c), (k, j, 2, w, c), (k, 2, c), (k, 2, c), (k,)]
    return _drawn(sizes, dtype, gain, memory_format, requires_grad, seed)


def weights_for(y: Tensor) -> Tensor:
    """Fixed random weights of the shape, dtype and device of `y`."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y)


def result_and_gradients(inputs: Sequence[Tensor | None], impl: str, eps: float = EPS) -> list[Tensor]:
    """y, and the gradients of a fixed random weighting of y with respect to every input."""
    y = F.constrict(*inputs, eps, impl)
    return [y.detach(), *torch.autograd.grad(y, [t for t in inputs if t is not None], weights_for(y))]


def layer_result_and_gradients(
    inputs: Sequence[Tensor | None], impl: str, eps: float = EPS, *, masks: bool = True
) -> list[Tensor]:
    """y, the logits, and the gradients of a weighting of y (and, if `masks`, of the masks) by every input."""
    y, *logits = F.spatial_constriction(*inputs, eps, impl)
    outputs = [y, F.rectangle_masks(*logits)] if masks else [y]
    leaves = [t for t in inputs if t is not None]
    return [y.detach(), *logits, *torch.autograd.grad(outputs, leaves, [weights_for(output) for output in outputs])]


def relative_error(actual: Tensor, truth: Tensor) -> float:
    """Largest deviation as a fraction of the largest entry."""
    return ((actual.double() - truth.double()).abs().max() / truth.double().abs().max().clamp_min(1e-30)).item()


def composed_in(dtype: torch.dtype, inputs: Sequence[Tensor | None], grad: Tensor, eps: float = EPS) -> list[Tensor]:
    """Plain PyTorch on the CPU, every tensor and step in `dtype`: y, and the gradients of (y * grad).sum()."""
    leaves = [None if t is None else t.detach().cpu().to(dtype).requires_grad_() for t in inputs]
    x, logits_h, logits_w, scale, bias, gain = leaves
    masks = F.rectangle_masks(logits_h, logits_w)
    if gain is not None:
        masks = masks * gain[:, None, None]
    x_hat = x - x.mean((2, 3), keepdim=True)
    x_hat = x_hat * (x_hat.square().mean((2, 3), keepdim=True) + eps).rsqrt()
    y = x
    for k in range(masks.shape[1]):
        styled = x_hat * scale[:, k, :, None, None] + bias[:, k, :, None, None]
        y = y * (1 - masks[:, k, None]) + styled * masks[:, k, None]
    return [y.detach(), *torch.autograd.grad(y, [t for t in leaves if t is not None], grad.cpu().to(dtype))]


def assert_about_as_exact_as_plain(
    results: Sequence[Tensor], inputs: Sequence[Tensor | None], grad: Tensor, eps: float = EPS
) -> None:
    """y deviates from float64 by at most twice what plain PyTorch in the dtype of x does, gradients by three times.

    `inputs` and `grad` are the very numbers that the operator got, exact in the dtype of x.
    """
    dtype = inputs[0].dtype
    plain, truth = (composed_in(kind, inputs, grad, eps) for kind in (dtype, torch.float64))
    for i, (actual, rival, expected) in enumerate(zip(results, plain, truth, strict=True)):
        error, allowed = relative_error(actual.cpu(), expected), relative_error(rival, expected)
        if not math.isfinite(allowed):  # float16 knows no eps of 1e-8
            allowed = torch.finfo(dtype).eps
        assert error <= (2 if i == 0 else 3) * allowed, f"result {i}: error {error:.1e}, {allowed:.1e} in plain PyTorch"
