"""Inputs for the tests of the fused operator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sc_layers import functional as F

EPS = 1e-8


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
    """Arguments of `constrict` up to `eps`, random: x in `dtype`, all others in the dtype that it is computed in."""
    generator = torch.Generator().manual_seed(seed)
    other = F.compute_dtype(dtype)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    x = (1 + 2 * draw(n, c, h, w)).to(dtype).contiguous(memory_format=memory_format)
    tensors = [x, 2 * draw(n, k, j, 2, h), 2 * draw(n, k, j, 2, w), draw(n, k, c), draw(n, k, c), 0.5 + draw(k).abs()]
    result = [tensor.to(x.dtype if i == 0 else other).requires_grad_(requires_grad) for i, tensor in enumerate(tensors)]
    return result if gain else [*result[:5], None]


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
    """Arguments of `constrict_layer` up to `eps`, random: x in `dtype`, all others in the dtype it is computed in."""
    generator = torch.Generator().manual_seed(seed)
    other = F.compute_dtype(dtype)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    x = (1 + 2 * draw(n, c, h, w)).to(dtype).contiguous(memory_format=memory_format)
    gates = [2 * draw(k, j, 2, h, c), 2 * draw(k, j, 2, w, c)]
    tensors = [x, draw(n, k), *gates, draw(k, 2, c), draw(k, 2, c), 0.5 + draw(k).abs()]
    result = [tensor.to(x.dtype if i == 0 else other).requires_grad_(requires_grad) for i, tensor in enumerate(tensors)]
    return result if gain else [*result[:6], None]


def weights_for(y: Tensor) -> Tensor:
    """Fixed random weights of the shape and dtype of `y`."""
    return torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)


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
