"""Work on numbered items in worker processes, its results in order: PyTorch's DataLoader behind one function."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

T = TypeVar("T")

WORKER_DIED = "DataLoader worker (pid"  # how PyTorch's message begins
MOST_WORKERS = 4  # more of them seldom help one GPU, and each holds a Python with PyTorch


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """How many processes decode pictures, unless the user says otherwise."""
    return min(MOST_WORKERS, usable_cpus())


class WorkerDied(ValueError):
    """A process that worked ahead ended by itself."""


@dataclass(frozen=True)
class _Refusal:
    """What a worker sends in place of a result: the message of a ValueError, without the worker's traceback."""

    message: str


class _Numbered(TorchDataset[object], Generic[T]):
    """A function of a number, as DataLoader wants it."""

    def __init__(self, function: Callable[[int], T]) -> None:
        self._function = function

    def __getitem__(self, number: int) -> T | _Refusal:
        try:
            return self._function(number)
        except ValueError as error:
            return _Refusal(str(error))


def _as_it_is(result: T) -> T:
    return result


def in_order(
    function: Callable[[int], T],
    numbers: Iterable[int],
    workers: int,
    pin_memory: bool = False,
    start_method: str | None = None,
) -> Generator[T, None, None]:
    """`function(n)` of every number in order, the next ones already in work in processes; close it to end them.

    Args:
        function: picklable where processes are not forked.
        numbers: which items, perhaps without end.
        workers: processes; 0 works in this one.
        pin_memory: whether tensors come in memory that a GPU copies from by itself.
        start_method: "fork", "spawn" or "forkserver"; None takes the platform's.

    Raises:
        ValueError: what `function` raises of that kind, with its own message; or `WorkerDied`.
    """
    loader: DataLoader[object] = DataLoader(
        _Numbered(function),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_as_it_is,
        pin_memory=pin_memory,
        multiprocessing_context=start_method if workers else None,
        # DataLoader draws a seed for its workers: not from the generator that the training draws its codes from.
        generator=torch.Generator(),
    )
    try:
        for result in loader:
            if isinstance(result, _Refusal):
                raise ValueError(result.message)
            yield result  # type: ignore[misc]
    except RuntimeError as error:
        if not str(error).startswith(WORKER_DIED):
            raise
        message = (
            "a process that reads ahead ended by itself, perhaps for want of (shared) memory; --workers 0 (workers=0)"
        )
        raise WorkerDied(f"{message} reads without such processes: {error}") from error
