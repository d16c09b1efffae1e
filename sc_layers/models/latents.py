"""The distributions that codes are drawn from."""

from __future__ import annotations

import torch
from torch import Tensor

LATENTS = ("uniform", "normal")
UNIFORM_BOUND = 2.0


def check_latents(latents: str) -> None:
    """Raise ValueError for a distribution that does not exist."""
    if latents not in LATENTS:
        raise ValueError(f"latents must be one of {', '.join(LATENTS)}, got {latents!r}")


def draw_codes(
    count: int,
    num_codes: int,
    latents: str,
    device: torch.device | str = "cpu",
    draws: torch.Generator | None = None,
) -> Tensor:
    """Random codes.

    Args:
        count: rows.
        num_codes: K.
        latents: "uniform" in (-2, 2) or "normal", N(0, 1).
        device: where they are drawn.
        draws: source of the random numbers, on `device`; None takes PyTorch's global one.

    Returns:
        [count, K] float32.

    Raises:
        ValueError: an unknown distribution.

    Source: SPEC, losses and training.
    """
    check_latents(latents)
    if latents == "uniform":
        return torch.rand(count, num_codes, generator=draws, device=device) * (2 * UNIFORM_BOUND) - UNIFORM_BOUND
    return torch.randn(count, num_codes, generator=draws, device=device)
