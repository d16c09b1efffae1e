"""An endless, seeded stream of batches that can be entered at any place."""

from __future__ import annotations

import functools
import itertools
import warnings
from collections.abc import Generator, Iterator

import numpy as np
from torch import Tensor
from torch.utils.data import Sampler

from .base import Dataset, IntArray, RenderedDataset
from .loading import default_workers, in_order

# First entry of the seed after the user's: what the numbers are for.
EPOCH, BATCH = 0, 1


@functools.lru_cache(maxsize=8)
def _epoch_order(length: int, seed: int, epoch: int) -> IntArray:
    return np.random.default_rng((seed, EPOCH, epoch)).permutation(length)


def _shuffled_indices(length: int, batch_size: int, seed: int, number: int) -> IntArray:
    """Indices of a batch in a stream of shuffled epochs; a batch may begin in one and end in the next."""
    first, last = number * batch_size, (number + 1) * batch_size - 1
    epochs = [_epoch_order(length, seed, epoch) for epoch in range(first // length, last // length + 1)]
    offset = first % length
    return np.concatenate(epochs)[offset : offset + batch_size]


class NumbersFrom(Sampler[int]):
    """The numbers of the batches of a stream, from `start` on and without end."""

    def __init__(self, start: int) -> None:
        self.start = start

    def __iter__(self) -> Iterator[int]:
        return itertools.count(self.start)


def batch_at(dataset: Dataset, batch_size: int, seed: int, number: int, mirror: bool = False) -> Tensor:
    """The batch with this number in the stream of `batches`: a function of its arguments alone.

    Args:
        dataset: rendered sets are drawn from uniformly, others in shuffled epochs.
        batch_size: images a batch.
        seed: integer from 0 that fixes the stream.
        number: place in the stream, from 0.
        mirror: flip every image left to right with probability 1/2.

    Returns:
        uint8 [batch_size, C, H, W].

    Raises:
        ValueError: an image is damaged.
    """
    return _batch_at(dataset, batch_size, seed, mirror, False, slice(None), number)[0]


def _batch_at(
    dataset: Dataset, batch_size: int, seed: int, mirror: bool, skip_bad: bool, share: slice, number: int
) -> tuple[Tensor, dict[int, str]]:
    """A `share` of a batch, and what was wrong with the damaged images that others stand in for, by index."""
    random = np.random.default_rng((seed, BATCH, number))
    if isinstance(dataset, RenderedDataset):
        indices = random.integers(len(dataset), size=batch_size)
    else:
        indices = _shuffled_indices(len(dataset), batch_size, seed, number)
    indices = indices[share]
    images, damaged = readable_images_at(dataset, indices) if skip_bad else (dataset.images_at(indices), {})
    if mirror:
        flipped = (random.random(batch_size) < 0.5)[share]
        # In NumPy: PyTorch would start a thread pool of its own.
        pixels = images.numpy()
        pixels[flipped] = pixels[flipped, :, :, ::-1]
    return images, damaged


def readable_images_at(dataset: Dataset, indices: IntArray) -> tuple[Tensor, dict[int, str]]:
    """The images of these indices, for each damaged one the next that can be read.

    Args:
        dataset: the images.
        indices: integers [B].

    Returns:
        uint8 [B, C, H, W], and what was wrong with the damaged ones, by index.

    Raises:
        ValueError: none can be read.
    """
    try:
        return dataset.images_at(indices), {}
    except ValueError:
        damaged: dict[int, str] = {}
        found = [_next_readable(dataset, int(index), damaged) for index in indices]
        return dataset.images_at(found), damaged


def _next_readable(dataset: Dataset, index: int, damaged: dict[int, str]) -> int:
    for step in range(len(dataset)):
        candidate = (index + step) % len(dataset)
        if candidate in damaged:
            continue
        try:
            dataset.images_at([candidate])
        except ValueError as error:
            damaged[candidate] = str(error)
        else:
            return candidate
    raise ValueError(f"none of the {len(dataset)} images of {dataset.name} can be read")


def batches(
    dataset: Dataset,
    batch_size: int,
    seed: int,
    mirror: bool = False,
    start: int = 0,
    *,
    share: slice = slice(None),
    workers: int | None = None,
    pin_memory: bool = False,
    skip_bad: bool = False,
    start_method: str | None = None,
) -> Generator[Tensor, None, None]:
    """Endless batches of a data set; files are decoded ahead in a few processes.

    Args:
        dataset: rendered sets are drawn from uniformly, others in shuffled epochs.
        batch_size: images a batch, at least 1.
        seed: integer from 0 that fixes the stream. Equal seeds give equal streams, whatever the number of workers.
        mirror: flip every image left to right with probability 1/2.
        start: number of the first batch. To go on after n batches, start at n; what came before is not computed.
        share: which images of each batch to give, for a process that shares the stream with others.
        workers: processes that read ahead; None means up to 4 where images are decoded from files, and none elsewhere.
        pin_memory: whether batches come in memory that a GPU copies from by itself.
        skip_bad: take the next image for one that is damaged, and warn once of each, instead of raising.
        start_method: how the processes start, see `in_order`.

    Returns:
        Generator of uint8 [B, C, H, W], where B is batch_size or what `share` leaves of it. Closed or dropped, it ends
        its processes.

    Raises:
        ValueError: an argument is out of range; while iterating, an image is damaged.
    """
    if workers is None:
        workers = default_workers() if dataset.decodes else 0
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("start", start, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if workers < 0:
        raise ValueError(f"workers must be at least 0, got {workers}")
    fetch = functools.partial(_batch_at, dataset, batch_size, seed, mirror, skip_bad, share)
    return _warning_once(in_order(fetch, NumbersFrom(start), workers, pin_memory, start_method))


def _warning_once(stream: Iterator[tuple[Tensor, dict[int, str]]]) -> Generator[Tensor, None, None]:
    """The batches of a stream; a warning for each damaged image when it is met first."""
    known: set[int] = set()
    for images, damaged in stream:
        for index in damaged.keys() - known:
            known.add(index)
            warnings.warn(f"left out, {len(known)} so far: {damaged[index]}", stacklevel=2)
        yield images
