"""The distributions that codes are drawn from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

LATENTS = ("uniform", "normal")
UNIFORM_BOUND = 2.0


def check_latents(latents: str) -> None:
    """Raise ValueError if `latents` names a distribution that does not exist."""
    if latents not in LATENTS:
        raise ValueError(f"latents must be one of {', '.join(LATENTS)}, got {latents!r}")


def recorded_latents(meta: Mapping[str, Any], asked: str | None = None) -> str:
    """The distribution that a network's codes are drawn from: the one asked for, or the one that its file records.

    Args:
        meta: what the file says besides its networks, as `load_network` gives it under "meta".
        asked: "uniform" or "normal"; None takes what the file says, which is normal where it says nothing, as the files
            of other programs do.

    Raises:
        ValueError: an unknown distribution, whether asked for or recorded.

    >>> recorded_latents({"training": {"latents": "uniform"}})
    'uniform'
    """
    training = meta.get("training")
    recorded = training.get("latents", "normal") if isinstance(training, Mapping) else "normal"
    latents = recorded if asked is None else asked
    check_latents(latents)
    return str(latents)


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


def codes_of_seed(seed: int, num_codes: int, latents: str) -> Tensor:
    """The codes [1, K] of a picture, on the CPU; PyTorch's random numbers stay as they are.

    Args:
        seed: decides the codes.
        num_codes: K.
        latents: "normal" or "uniform".

    Raises:
        ValueError: an unknown distribution.
    """
    return draw_codes(1, num_codes, latents, draws=torch.Generator().manual_seed(seed))


def traversal_codes(
    base: Tensor, points: int, bound: float | tuple[float, float] = 2.0, dims: list[int] | None = None
) -> Tensor:
    """Codes in which one entry after the other sweeps `linspace(-bound, bound)` while the rest keep `base`.

    Args:
        base: [K].
        points: codes a sweep, at least 2.
        bound: half of the sweep's range, or its two ends.
        dims: which codes to sweep, in this order; all of them when None.

    Returns:
        [D, points, K] where D is the number of swept codes.

    Raises:
        ValueError: fewer than two points, or a code that does not exist.

    >>> traversal_codes(torch.zeros(2), points=3, bound=1.0).tolist()
    [[[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0]], [[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]]]
    """
    if points < 2:
        raise ValueError(f"a sweep needs at least 2 points, got {points}")
    dims = list(range(len(base))) if dims is None else dims
    for dim in dims:
        if not 0 <= dim < len(base):
            raise ValueError(f"code {dim} does not exist: there are {len(base)} codes, 0 to {len(base) - 1}")
    codes = base.repeat(len(dims), points, 1)
    low, high = bound if isinstance(bound, tuple) else (-bound, bound)
    sweep = torch.linspace(low, high, points, dtype=base.dtype, device=base.device)
    for row, dim in enumerate(dims):
        codes[row, :, dim] = sweep
    return codes
