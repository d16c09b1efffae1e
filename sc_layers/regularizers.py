"""Regularisers of a generator that the paper is compared with: they want codes to act independently of each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_Generator = Callable[[Tensor], Tensor]


def _directions(codes: Tensor, directions: Tensor | None, count: int) -> Tensor:
    """Directions [D, N, K] of entries -1 and 1: those given, or `count` random ones."""
    if directions is None:
        directions = torch.randint(0, 2, (count, *codes.shape), device=codes.device).to(codes) * 2 - 1
    if directions.ndim != 3 or directions.shape[1:] != codes.shape or len(directions) < 2:
        raise ValueError(
            f"directions must be [D, {', '.join(map(str, codes.shape))}], D at least 2, got {tuple(directions.shape)}"
        )
    return directions


def hessian_penalty(
    generator: _Generator, codes: Tensor, num_directions: int = 2, step: float = 0.1, directions: Tensor | None = None
) -> Tensor:
    """How much codes act together: the off-diagonal of the Hessian of every output.

    For directions v of entries -1 and 1, the variance of `v^T H v` is twice the sum of the squared off-diagonal entries
    of H. Second derivatives are central differences; of all outputs the largest variance counts.

    Args:
        generator: codes [N, K] -> outputs [N, ...]. It has to hold its noise fixed.
        codes: [N, K].
        num_directions: D, random directions for each sample.
        step: of the differences.
        directions: [D, N, K] of entries -1 and 1; None draws them.

    Returns:
        The penalty, a 0-d tensor.

    Raises:
        ValueError: directions of another shape, or fewer than two.

    Source: Peebles et al., The Hessian Penalty (2020), Eq. 5, and its authors' program.
    """
    middle = generator(codes)
    moves = step * _directions(codes, directions, num_directions)
    bends = [(generator(codes + move) - 2 * middle + generator(codes - move)) / step**2 for move in moves]
    return torch.stack(bends).var(dim=0).max()


def orthogonal_jacobian_penalty(
    generator: _Generator, codes: Tensor, num_directions: int = 2, step: float = 0.1, directions: Tensor | None = None
) -> Tensor:
    """How far the changes that codes make are from orthogonal to each other.

    For directions v of entries -1 and 1, the variance of `|J v|^2` is twice the sum of the squared off-diagonal entries
    of J^T J. Derivatives are forward differences; of all samples the largest variance counts.

    Args:
        generator: codes [N, K] -> outputs [N, ...]. It has to hold its noise fixed.
        codes: [N, K].
        num_directions: D, random directions for each sample.
        step: of the differences.
        directions: [D, N, K] of entries -1 and 1; None draws them.

    Returns:
        The penalty, a 0-d tensor.

    Raises:
        ValueError: directions of another shape, or fewer than two.

    Source: Wei et al., Orthogonal Jacobian Regularization (2021), Eq. 8, and its authors' program.
    """
    middle = generator(codes)
    moves = step * _directions(codes, directions, num_directions)
    changes = [((generator(codes + move) - middle) / step).flatten(1) for move in moves]
    return torch.stack([change.square().sum(1) for change in changes]).var(dim=0).max()


# By the name that settings give them; with none, a training has no such loss.
PENALTIES = {"hessian": hessian_penalty, "orojar": orthogonal_jacobian_penalty}
