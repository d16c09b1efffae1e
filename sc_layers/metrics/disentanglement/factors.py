"""Representations of images whose generative factors are known: the common ground of the supervised metrics."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...images import to_network_range
from ..generators import device_of, evaluating
from ..score import Floats, Ints

Encoder = Callable[[Tensor], Tensor]


class FactorGrid(Protocol):
    """A data set that has an image of every combination of its factors, such as the rendered ones of this package.

    `factor_names` is optional.
    """

    @property
    def factor_sizes(self) -> Sequence[int]:
        """Number of values of each of the F factors."""
        ...

    def images(self, factors: Any, /) -> Tensor:
        """Images [B, C, H, W], as bytes or in -1..1, of `factors` [B, F]."""
        ...


@dataclass(frozen=True)
class Draws:
    """Images that were drawn.

    Attributes:
        factors: their factor indices [N, F].
        keys: what `LabelledSet.images` finds them by, [N] or [N, F].
    """

    factors: Ints
    keys: Ints

    @classmethod
    def joined(cls, parts: Sequence[Draws]) -> Draws:
        """All draws of `parts`, one after the other."""
        return cls(np.concatenate([part.factors for part in parts]), np.concatenate([part.keys for part in parts]))


class LabelledSet(ABC):
    """Images that can be drawn by their factors, whether or not there is one of every combination.

    Attributes:
        factor_names: names of the F factors.
        factor_sizes: number of values of each.
        continuous: indices of the factors whose values are measured rather than counted; see `require_discrete`.
    """

    factor_names: tuple[str, ...]
    factor_sizes: tuple[int, ...]
    continuous: tuple[int, ...] = ()

    @abstractmethod
    def images(self, keys: Any, /) -> Tensor:
        """Images [B, C, H, W], as bytes or in -1..1, of `keys` [B] or [B, F]."""

    @abstractmethod
    def draw(self, num: int, rng: np.random.RandomState) -> Draws:
        """Draw `num` images at random, by `rng`."""

    @abstractmethod
    def draw_parts(self, nums: Sequence[int], rng: np.random.RandomState, chunk: int) -> list[Draws]:
        """Draw samples of `nums` images by `rng`, to fit and to judge a predictor.

        In a finite set no image is in two of them; where it has fewer images, each sample is the same share of them.
        A grid is drawn `chunk` images at a time, as the reference programs do: the stream of draws depends on it.
        """

    @abstractmethod
    def draw_group(self, factor: int, num: int, rng: np.random.RandomState) -> Draws:
        """Draw `num` images by `rng` among all that share the value of `factor` of one random image.

        Raises:
            ValueError: there are no two images that share a value of the factor.
        """

    @abstractmethod
    def draw_pairs(self, factor: int, num: int, rng: np.random.RandomState) -> tuple[Draws, Draws]:
        """Draw `num` pairs of images by `rng` that share the value of `factor`; the second is any image that has it.

        Raises:
            ValueError: there are no two images that share a value of the factor.
        """


FactorData = FactorGrid | LabelledSet


class Grid(LabelledSet):
    """A full grid of factors; an image's key is its factors.

    Args:
        data: gives the images.
    """

    def __init__(self, data: FactorGrid) -> None:
        self.factor_sizes = tuple(data.factor_sizes)
        names = getattr(data, "factor_names", None)
        self.factor_names = tuple(names or (f"factor {index}" for index in range(len(self.factor_sizes))))
        self._data = data

    def images(self, keys: Any, /) -> Tensor:
        return self._data.images(keys)

    def draw_factors(self, num: int, rng: np.random.RandomState) -> Ints:
        """Draw rows of factor indices [num, F] by `rng`, one draw a factor in the order of the factors."""
        return np.stack([rng.randint(size, size=num) for size in self.factor_sizes], axis=1).astype(np.int64)

    def draw(self, num: int, rng: np.random.RandomState) -> Draws:
        factors = self.draw_factors(num, rng)
        return Draws(factors, factors)

    def draw_parts(self, nums: Sequence[int], rng: np.random.RandomState, chunk: int) -> list[Draws]:
        sizes = [[min(chunk, num - start) for start in range(0, num, chunk)] for num in nums]
        return [Draws.joined([self.draw(size, rng) for size in part]) for part in sizes]

    def draw_group(self, factor: int, num: int, rng: np.random.RandomState) -> Draws:
        group = self.draw_factors(num, rng)
        group[:, factor] = group[0, factor]
        return Draws(group, group)

    def draw_pairs(self, factor: int, num: int, rng: np.random.RandomState) -> tuple[Draws, Draws]:
        first, second = self.draw_factors(num, rng), self.draw_factors(num, rng)
        second[:, factor] = first[:, factor]
        return Draws(first, first), Draws(second, second)


def labelled(data: FactorData) -> LabelledSet:
    """`data` itself if it can be drawn from by factors, else as the full grid that it then is."""
    return data if isinstance(data, LabelledSet) else Grid(data)


def require_discrete(data: LabelledSet) -> None:
    """Refuse `data` with factors whose values are measured rather than counted: metrics count images of a value.

    Raises:
        ValueError: there are such factors; the message names them.
    """
    if data.continuous:
        named = ", ".join(f"{data.factor_names[f]!r} ({data.factor_sizes[f]} values)" for f in data.continuous)
        raise ValueError(
            f"the metric needs factors with few values that repeat, and these are continuous: {named}; cut them into "
            "bins (open_factor_data(..., bins=10), --bins 10)"
        )


def random_state(seed: int | np.random.RandomState) -> np.random.RandomState:
    """The legacy generator of numpy, whose stream the published reference programs use; `seed` itself if it is one."""
    return seed if isinstance(seed, np.random.RandomState) else np.random.RandomState(seed)


def varying_factors(data: LabelledSet) -> Ints:
    """Indices of the factors of `data` that take more than one value; the others are left out with a warning."""
    sizes = np.asarray(data.factor_sizes)
    if (sizes < 2).any():
        names = ", ".join(data.factor_names[f] for f in np.flatnonzero(sizes < 2).tolist())
        warn(f"factors that take a single value are left out: {names}")
    return np.flatnonzero(sizes > 1).astype(np.int64)


def warn(message: str) -> None:
    """Warn with `message` from the metric that the user called."""
    warnings.warn(message, RuntimeWarning, stacklevel=4)


@torch.inference_mode()
def encode(
    encoder: Encoder,
    images_of: Callable[[Ints], Tensor],
    keys: Ints,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    shuffle_seed: int = 0,
) -> Floats:
    """Representations [N, K] of the images that `images_of` gives for `keys` [N, ...].

    The images pass the encoder in shuffled order and the rows are put back afterwards. A recogniser with minibatch
    standard deviation sees its whole batch, so batches in which one factor is held fixed would leak that factor.

    Args:
        encoder: maps images [B, C, H, W], in -1..1, to representations [B, K]; a module is in evaluation mode
            meanwhile.
        images_of: images [B, C, H, W], as bytes or in -1..1, of rows of `keys`, such as `LabelledSet.images`.
        keys: which images, one a row.
        batch_size: images a pass.
        device: where the encoder is; None takes the device of its parameters, or the CPU.
        shuffle_seed: seed of the order.

    Raises:
        ValueError: the encoder returns another shape than [B, K], or values that are not finite.
    """
    device = device_of(encoder) if device is None else torch.device(device)
    order = np.random.RandomState(shuffle_seed).permutation(len(keys))
    parts = []
    with evaluating(encoder):
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            images = images_of(keys[rows]).to(device)
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

    Args:
        encoder, batch_size, device: see `encode`.
        data: data set with known factors.
        nums, rng, chunk: see `LabelledSet.draw_parts`.

    Raises:
        ValueError: a factor is continuous.
    """
    source = labelled(data)
    require_discrete(source)
    parts = source.draw_parts(nums, rng, chunk)
    codes = encode(encoder, source.images, Draws.joined(parts).keys, batch_size, device)
    split = np.split(codes, np.cumsum([len(part.keys) for part in parts])[:-1])
    return list(zip(split, [part.factors for part in parts], strict=True))
