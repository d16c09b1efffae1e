"""A training shared by several processes: who this one is, and what they tell each other."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn

from ..data.loading import usable_cpus

LONGEST_WAIT = timedelta(hours=24)  # for the first process, which draws pictures and measures; a lost one shows at once


class ProcessLost(RuntimeError):
    """Another process of the training has ended by itself."""


class ToldElsewhere(ProcessLost):
    """Another process of the training has raised an error, which its user is told there."""


@contextlib.contextmanager
def _noticing_loss() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # the only class that all backends share
        message = str(error).splitlines()[0][:200]
        raise ProcessLost(f"another process of this training has ended, or can't be reached: {message}") from error


def _reduce(tensor: Tensor, operation: Any) -> None:
    """Replace a tensor by what an operation makes of it and those of all processes."""
    with _noticing_loss():
        distributed.all_reduce(tensor, operation)


@dataclass(frozen=True)
class Processes:
    """The processes that share a training; as it is made without arguments, this one alone.

    Every process holds all networks and optimisers, and goes through its own passes of each batch; gradients are
    averaged before each update, so that all stay equal.

    Attributes:
        rank: number of this process, from 0; the first writes files and shows progress.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    @contextlib.contextmanager
    def joined(cls, cuda: bool) -> Iterator[Processes]:
        """Meet the others whom `torchrun`, or what sets its environment variables, started, for as long as the block.

        Args:
            cuda: whether tensors on a CUDA device are exchanged, by NCCL; others are exchanged by Gloo.

        Raises:
            ProcessLost: they don't meet.
        """
        if not is_shared():
            yield cls()
            return
        # PyTorch's optimisers import this module, and it keeps the group that it finds: then nothing would end the
        # group's threads, and a thread that lets go of a tensor after Python has ended aborts the process.
        importlib.import_module("torch.distributed.nn")
        with _noticing_loss():
            distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
        try:
            yield cls(distributed.get_rank(), distributed.get_world_size())
        finally:
            distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """A block that all processes leave alike: where it fails in some, the first of these raises why.

        Raises:
            ToldElsewhere: it failed, and another process raises why.
        """
        try:
            yield
        except ProcessLost:
            raise
        except Exception:
            if self.count - self.largest(self.count - self.rank)[0] == self.rank:
                raise
            raise ToldElsewhere("another process of this training has failed") from None
        if self.largest(0)[0]:
            raise ToldElsewhere("another process of this training has failed")

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its mean over all processes, in place.

        Args:
            tensors: of one device and dtype, of the same shapes in every process.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.count == 1:
            return
        joined = torch.cat([tensor.flatten() for tensor in tensors])
        _reduce(joined, distributed.ReduceOp.SUM)
        joined /= self.count
        for tensor, mean in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view(tensor.shape))

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over all processes; what has none gets 0, as everywhere.

        Args:
            parameters: in the same order in every process.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.count == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.average([parameter.grad for parameter in parameters if parameter.grad is not None])

    def largest(self, *numbers: int) -> list[int]:
        """For each number the largest that any process gave; on the CPU, without waiting for a device.

        Args:
            numbers: as many in every process.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.count == 1:
            return list(numbers)
        tensor = torch.tensor(numbers)
        _reduce(tensor, distributed.ReduceOp.MAX)
        return [int(number) for number in tensor]

    def of_first(self, value: Any) -> Any:
        """The value that the first process gave, in all of them.

        Args:
            value: anything plain; only that of the first process counts.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.count == 1:
            return value
        values = [value]
        with _noticing_loss():
            distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]


def is_shared() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def number_on_machine() -> int:
    """Number of this process among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextlib.contextmanager
def _keeping_handlers() -> Iterator[None]:
    """A block after which signals do what they did before; PyTorch's launcher leaves its own handlers."""
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def launch(arguments: Sequence[str], count: int) -> int:
    """Run `python arguments...` in so many processes of this machine, that share a training.

    Args:
        arguments: of the Python that runs this.
        count: how many processes.

    Returns:
        The exit status of the processes: 0 if all ended well.

    Raises:
        ProcessLost: a process was ended by a signal that this one did not get; so were the others.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # what ends is told by us
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cpus() // count)))
    where = "localhost:0"
    config = LaunchConfig(1, 1, count, run_id="sc-layers", rdzv_backend="c10d", rdzv_endpoint=where, max_restarts=0)
    try:
        with _keeping_handlers():
            elastic_launch(config, sys.executable)(*arguments)
    except SignalException as ended:
        return 128 + ended.sigval
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM:
                name = signal.Signals(-failure.exitcode).name
                raise ProcessLost(f"process {rank} of {count} was ended by {name}, and the others with it") from None
        return max(1, *(failure.exitcode for failure in error.failures.values()))
    return 0
