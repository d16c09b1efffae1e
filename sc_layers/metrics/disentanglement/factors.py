"""Representations of images whose generative factors are known: the common ground of the supervised metrics."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...images import to_network_range
from ..traversal_length import device_of, evaluating

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Encoder = Callable[[Tensor], Tensor]


class FactorData(Protocol):
    """A data set that can draw the image of any combination of its factors, such as the rendered ones of this package.

    `images(factors [B, F])` returns images [B, C, H, W], as bytes or in -1..1.

    A data set that is not a full grid also has `draw_factors(num, rng) -> [num, F]`, which draws among the
    combinations that exist, and then `images` must accept what the metrics build from such draws: rows in which one
    column is copied from another row.
    """

    @property
    def factor_sizes(self) -> Sequence[int]: ...

    def images(self, factors: Any, /) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """The value of one metric.

    Attributes:
        name: name of the metric, as the command line spells it.
        score: the headline number.
        details: further numbers and arrays by name, such as training accuracy or the importance matrix.
    """

    name: str
    score: float
    details: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists and numbers, ready for JSON."""
        return {
            "name": self.name,
            "score": self.score,
            **{key: _plain(value) for key, value in self.details.items()},
        }


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def random_state(seed: int | np.random.RandomState) -> np.random.RandomState:
    """The legacy generator of numpy, whose stream the published reference programs use."""
    return seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)


def sample_factors(data: FactorData, num: int, rng: np.random.RandomState) -> Ints:
    """Draw `num` rows of factor indices [num, F], one draw a factor in the order of the factors."""
    own = getattr(data, "draw_factors", None)
    if own is not None:
        return np.asarray(own(num, rng), dtype=np.int64)
    return np.stack([rng.randint(size, size=num) for size in data.factor_sizes], axis=1).astype(np.int64)


def varying_factors(data: FactorData) -> Ints:
    """Indices of the factors that take more than one value; the others say nothing and are left out with a warning."""
    sizes = np.asarray(data.factor_sizes)
    if (sizes < 2).any():
        warn(f"factors {np.flatnonzero(sizes < 2).tolist()} take a single value and are left out")
    return np.flatnonzero(sizes > 1).astype(np.int64)


def warn(message: str) -> None:
    """Warn from the metric that the user called."""
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@torch.inference_mode()
def encode(
    encoder: Encoder,
    data: FactorData,
    factors: Ints,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    shuffle_seed: int = 0,
) -> Floats:
    """Representations [N, K] of the images of `factors` [N, F].

    The images pass the encoder in shuffled order and the rows are put back afterwards. A recogniser with minibatch
    standard deviation sees its whole batch, so batches in which one factor is held fixed would leak that factor.

    Args:
        encoder: maps images [B, C, H, W], in -1..1, to representations [B, K]; a module is in eval mode meanwhile.
        data: the data set with known factors.
        factors: factor indices [N, F].
        batch_size: images a pass.
        device: where the encoder is; None takes the device of its parameters, or the CPU.
        shuffle_seed: seed of the order.

    Raises:
        ValueError: the encoder returns another shape than [B, K], or values that are not finite.
    """
    device = device_of(encoder) if device is None else torch.device(device)
    order = np.random.RandomState(shuffle_seed).permutation(len(factors))
    parts = []
    with evaluating(encoder):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            images = data.images(factors[rows]).to(device)
            images = to_network_range(images) if images.dtype == torch.uint8 else images
            images = images.contiguous(memory_format=torch.channels_last)  # a fifth quicker on CPUs
            parts.append(_checked(encoder(images), len(rows)))
    if not parts:
        raise ValueError("no images to encode: the metric was asked for 0 samples")
    return np.concatenate(parts)[np.argsort(order)]


def _checked(codes: Any, num: int) -> Floats:
    if not isinstance(codes, Tensor):
        raise ValueError(f"the encoder returned {type(codes).__name__} for {num} images, expected [{num}, K]")
    if codes.ndim != 2 or codes.shape[0] != num:
        raise ValueError(f"the encoder returned shape {tuple(codes.shape)} for {num} images, expected [{num}, K]")
    if not codes.isfinite().all():
        raise ValueError("the encoder returned values that are not finite")
    return codes.double().cpu().numpy()


def sample_codes(
    encoder: Encoder,
    data: FactorData,
    nums: Sequence[int],
    rng: np.random.RandomState,
    chunk: int,
    batch_size: int,
    device: torch.device | str | None,
) -> list[tuple[Floats, Ints]]:
    """Random samples of (representation [N, K], factors [N, F]), one pair for each number in `nums`.

    Factors are drawn `chunk` rows at a time, as the reference programs do: the stream of draws depends on it.
    """
    draws = [_draw_in_chunks(data, num, rng, chunk) for num in nums]
    codes = encode(encoder, data, np.concatenate(draws), batch_size, device)
    split = np.split(codes, np.cumsum(nums)[:-1])
    return list(zip(split, draws, strict=True))


def _draw_in_chunks(data: FactorData, num: int, rng: np.random.RandomState, chunk: int) -> Ints:
    sizes = [min(chunk, num - start) for start in range(0, num, chunk)]
    return np.concatenate([sample_factors(data, size, rng) for size in sizes])
