"""What one file may cost: bytes that are copied or taken for tensors, and tokens of its pickles."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError

MAX_TOKENS = 1_000_000
_FACTOR = 16
_SLACK = 1 << 24
_SHAPED = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.eye)
_RANGES = (torch.arange, torch.linspace)
_ITEM_SIZE = 4


class Budget:
    """Bytes that one file may make us copy or allocate, over all pickles nested in it, and tokens it may hold.

    Args:
        size: bytes of the file, which may unfold to 16 times that and 16 MB more.
    """

    def __init__(self, size: int) -> None:
        self.bytes_left = _FACTOR * size + _SLACK
        self.tokens_left = MAX_TOKENS

    def charge(self, count: int) -> None:
        """Pay for `count` bytes; raises CheckpointError when there are none left."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise CheckpointError("the checkpoint unfolds to much more data than the file holds")

    def token(self) -> None:
        """Pay for one token of a pickle; raises CheckpointError when there are none left."""
        self.tokens_left -= 1
        if self.tokens_left < 0:
            raise CheckpointError(f"the checkpoint has more than {MAX_TOKENS} tokens")


class AllocationLimit(TorchFunctionMode):
    """Refuses tensors that a constructor makes beyond what the budget allows, before they take memory."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _SHAPED or func in _RANGES:
            values = [*args, kwargs.get("size", ())]
            shapes: list[Any] = [value for value in values if isinstance(value, (list, tuple)) and value]
            numbers = [value for value in values if isinstance(value, (int, float))]
            shapes = shapes or ([[max(numbers, default=0)]] if func in _RANGES else [numbers])
            self.budget.charge(_ITEM_SIZE * max(math.prod(map(int, shape)) for shape in shapes))
        return func(*args, **kwargs)
