"""An endless, seeded stream of batches that can be entered at any place."""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch import Tensor

from .base import Dataset, IntArray, RenderedDataset

MAX_THREADS = 4
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


def batch_at(dataset: Dataset, batch_size: int, seed: int, number: int, mirror: bool = False) -> Tensor:
    """The batch with this number in the stream of `batches`: a function of its arguments alone.

    Args:
        dataset: rendered sets are drawn from uniformly, others in shuffled epochs.
        batch_size: images a batch.
        seed: of the stream, 0 or more.
        number: place in the stream, from 0.
        mirror: flip every image left to right with probability 1/2.

    Returns:
        uint8 [batch_size, C, H, W].
    """
    random = np.random.default_rng((seed, BATCH, number))
    if isinstance(dataset, RenderedDataset):
        indices = random.integers(len(dataset), size=batch_size)
    else:
        indices = _shuffled_indices(len(dataset), batch_size, seed, number)
    images = dataset.images_at(indices)
    if mirror:
        flipped = random.random(batch_size) < 0.5
        # In NumPy: this may run in a thread, where PyTorch would start a thread pool of its own.
        pixels = images.numpy()
        pixels[flipped] = pixels[flipped, :, :, ::-1]
    return images


def batches(dataset: Dataset, batch_size: int, seed: int, mirror: bool = False, start: int = 0) -> Iterator[Tensor]:
    """Endless batches of a data set; files are decoded ahead in a few threads.

    Args:
        dataset: rendered sets are drawn from uniformly, others in shuffled epochs.
        batch_size: images a batch, at least 1.
        seed: of the stream, 0 or more. Equal seeds give equal streams.
        mirror: flip every image left to right with probability 1/2.
        start: number of the first batch. To go on after n batches, start at n; what came before is not computed.

    Returns:
        Iterator over uint8 [batch_size, C, H, W].

    Raises:
        ValueError: an argument is out of range.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("seed", seed, 0), ("start", start, 0)):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    fetch = functools.partial(batch_at, dataset, batch_size, seed, mirror=mirror)
    return _fetch_ahead(fetch, start) if dataset.decodes else map(fetch, itertools.count(start))


def _fetch_ahead(fetch: Callable[[int], Tensor], start: int) -> Iterator[Tensor]:
    """`fetch(start), fetch(start + 1), ...`, the next few already in work in threads."""
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="sc-layers-data")
    try:
        pending = deque(pool.submit(fetch, start + ahead) for ahead in range(threads))
        for number in itertools.count(start + threads):
            pending.append(pool.submit(fetch, number))
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
