"""What is measured: any function from codes to images, how its codes are drawn, and how it is held still meanwhile."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._optional import require
from ..models.latents import check_latents, draw_codes

GeneratorFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Sampling:
    """How a generator is run: the same for every metric that makes images.

    Attributes:
        latents: distribution of the codes, "normal" or "uniform" (-2..2); that of the training.
        seed: integer that fixes every random draw.
        batch_size: images a pass.
        device: where to compute; None takes that of the generator's parameters, or the CPU.
        progress: show a progress bar with the time left.

    Raises:
        ValueError: an unknown distribution, or a batch without images.
    """

    latents: str = "normal"
    seed: int = 0
    batch_size: int = 32
    device: torch.device | str | None = None
    progress: bool = False

    def __post_init__(self) -> None:
        check_latents(self.latents)
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def device_of(self, function: Callable[..., Any]) -> torch.device:
        """The device that was asked for, or the one where `function` is."""
        return device_of(function) if self.device is None else torch.device(self.device)

    def codes(self, num: int, num_codes: int) -> Tensor:
        """Codes [num, num_codes] float32 on the CPU, the same ones each time."""
        return draw_codes(num, num_codes, self.latents, draws=torch.Generator().manual_seed(self.seed))


SAMPLING = Sampling()


def device_of(function: Callable[..., Any]) -> torch.device:
    """Device of the first parameter of `function`, if it is a module; the CPU for anything else."""
    first = next(function.parameters(), None) if isinstance(function, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def number_of_codes(generator: GeneratorFunction, num_codes: int | None) -> int:
    """`num_codes`, or what the generator says of itself.

    Raises:
        ValueError: neither says it, or the number is below 1.
    """
    num = getattr(generator, "num_codes", None) if num_codes is None else num_codes
    if num is None:
        raise ValueError("num_codes is needed: the generator does not say how many codes it takes")
    if num < 1:
        raise ValueError(f"num_codes must be at least 1, got {num}")
    return int(num)


@contextlib.contextmanager
def evaluating(function: Callable[..., Any]) -> Iterator[None]:
    """Keep `function`, if it is a module, in evaluation mode meanwhile; each part gets back its own mode afterwards."""
    modes = [(part, part.training) for part in function.modules()] if isinstance(function, nn.Module) else []
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextlib.contextmanager
def fixed_noise(generator: GeneratorFunction) -> Iterator[GeneratorFunction]:
    """The generator in evaluation mode, and called with `noise_mode="const"` if it is a module that takes one."""
    with evaluating(generator):
        if isinstance(generator, nn.Module) and "noise_mode" in inspect.signature(generator.forward).parameters:
            yield functools.partial(generator, noise_mode="const")
        else:
            yield generator


def progress_bar(total: int, description: str, shown: bool) -> Any:
    """A context manager that gives a progress bar over `total` images under `description`, or None if not `shown`."""
    if not shown:
        return contextlib.nullcontext()
    return require("tqdm", "metrics").tqdm(total=total, unit="img", desc=description, leave=False)
