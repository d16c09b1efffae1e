"""Passes through the networks as CUDA graphs: thousands of small kernels that a card gets by one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from .config import TrainingConfig
from .processes import Processes

Pass: TypeAlias = Callable[..., tuple[Tensor, ...]]

_WARM_UPS = 3  # before cuDNN, the allocator and autograd have made all that they make but once


@dataclass
class Recorded:
    """A pass that was recorded.

    Attributes:
        inputs: what it reads; new values are copied into them.
        outputs: what it wrote last.
        replay: runs it again.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    replay: Callable[[], object]


def obstacle(config: TrainingConfig, processes: Processes) -> str | None:
    """Why the passes of a training cannot be recorded, or None where they can.

    Args:
        config: the settings.
        processes: those that share the training.
    """
    if processes.count > 1:
        return "several processes share the training"
    if config.augment != "none":
        return f"augment is {config.augment!r}"
    return None if config.cascade_kimg is None else "cascade_kimg changes which code is perturbed"


class Graphs:
    """Runs passes, each of which is recorded into a CUDA graph at its first call.

    A pass is a function of tensors that adds to the gradients of an optimiser's parameters, where they are. It may draw
    PyTorch's random numbers on the device: a replay draws those that the pass itself would. All else that it reads,
    such as settings, has the values of its first call for good.

    Args:
        enabled: whether to record; passes are called as they are where not.
    """

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._recorded: dict[str, Recorded] = {}
        self._pool: Any = None

    def run(self, name: str, function: Pass, optimizer: torch.optim.Optimizer, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run a pass.

        Args:
            name: of the pass, under which it is recorded.
            function: the pass.
            optimizer: holds the gradients, which are 0 at a first call.
            inputs: arguments of the pass, of the same shapes at each call.

        Returns:
            What the pass returns, in memory of its own.
        """
        if self.enabled and name not in self._recorded:
            try:
                self._recorded[name] = self._record(function, optimizer, inputs)
            except RuntimeError as error:
                reason = str(error).partition("\n")[0]
                warnings.warn(
                    f"training without CUDA graphs: the {name} pass cannot be recorded: {reason}", stacklevel=2
                )
                self.enabled = False
        if not self.enabled:
            return function(*inputs)
        recorded = self._recorded[name]
        for static, given in zip(recorded.inputs, inputs, strict=True):
            static.copy_(given)
        recorded.replay()
        return tuple(output.clone() for output in recorded.outputs)

    def _record(self, function: Pass, optimizer: torch.optim.Optimizer, inputs: Sequence[Tensor]) -> Recorded:
        """Warm up and record; gradients are 0 and random numbers where they were, whatever happens."""
        static = tuple(value.clone() for value in inputs)
        device = inputs[0].device
        random_state = torch.cuda.get_rng_state(device)
        try:
            return self._recorded_on(device, function, static)
        finally:
            optimizer.zero_grad(set_to_none=False)
            torch.cuda.set_rng_state(random_state, device)

    def _recorded_on(self, device: torch.device, function: Pass, static: tuple[Tensor, ...]) -> Recorded:
        beside, current = torch.cuda.Stream(device), torch.cuda.current_stream(device)
        beside.wait_stream(current)
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UPS):
                function(*static)
        current.wait_stream(beside)
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Other threads, such as one that pins memory of the next images, may go on meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            outputs = function(*static)
        return Recorded(static, outputs, graph.replay)
