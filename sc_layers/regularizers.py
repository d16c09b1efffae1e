"""Regularisers of a generator that the paper is compared with: they want codes to act independently of each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .losses import draw_dims

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


def sharing_partners(codes: Tensor, others: Tensor, chances: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Codes that share one entry with those given, and nothing else: the pairs of InfoGAN-CR.

    Args:
        codes: [N, K].
        others: [N, K], drawn independently.
        chances: [K], how often each entry is shared in proportion to the others; None shares all as often.

    Returns:
        The partners [N, K], and which entry of each row is shared, [N].

    Raises:
        ValueError: shapes that differ.

    Source: Lin et al., InfoGAN-CR and ModelCentrality (2020), Sec. 3, without a gap between what is not shared, as its
    authors' program has it for DSprites.
    """
    if codes.shape != others.shape or codes.ndim != 2:
        raise ValueError(f"codes and others must both be [N, K], got {tuple(codes.shape)} and {tuple(others.shape)}")
    dims = draw_dims(codes, chances)
    return torch.where(nn.functional.one_hot(dims, codes.shape[1]).bool(), codes, others), dims


def pair_loss(logits: Tensor, dims: Tensor) -> Tensor:
    """How badly one tells from two images which code they share, or which changed: `-log softmax(logits)[dim]`.

    Generator and recogniser of pairs make it small together. The contrastive regulariser of InfoGAN-CR takes pairs of
    `sharing_partners`, variation predictability pairs whose codes differ in one entry.

    Args:
        logits: [N, K], what the recogniser reads in each pair.
        dims: [N], which code it is.

    Returns:
        [N].

    Source: Lin et al., InfoGAN-CR and ModelCentrality (2020), Eq. 4; Zhu et al., Learning Disentangled Representations
    with Latent Variation Predictability (2020), Eq. 4; and their authors' programs.
    """
    return nn.functional.cross_entropy(logits, dims, reduction="none")


# By the name that settings give them; with none, a training has no such loss.
PENALTIES = {"hessian": hessian_penalty, "orojar": orthogonal_jacobian_penalty}
PAIRED = ("infogan_cr", "vp")  # by `pair_loss`, with a network of its own
REGULARIZERS = ("none", *PENALTIES, *PAIRED)
