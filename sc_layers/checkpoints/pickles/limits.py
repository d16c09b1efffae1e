"""What one file may cost: bytes that are copied or taken, and values that it holds."""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from torch import nn
from torch.nn.modules import module as registration
from torch.overrides import TorchFunctionMode

from ..errors import CheckpointError

MAX_TOKENS = 1_000_000
OBJECT = 100  # bytes that a container, or an entry of one, takes about
_FACTOR = 8
_SLACK = 1 << 26
_LONGEST_INTEGER = 20  # digits
_SHAPED = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.randint, torch.eye)
_RANGES = (torch.arange, torch.linspace)
_ITEM_SIZE = 4
_MODULE = 4000  # bytes that a module or a parameter takes about besides its numbers


class Budget:
    """Bytes that one file may make us copy or take, over all that is nested in it, and values that it may hold.

    Args:
        size: bytes of the file, or of the tensors that it holds. It may unfold to 8 times that and 64 MiB more.
    """

    def __init__(self, size: int) -> None:
        self.bytes_left = _FACTOR * size + _SLACK
        self.tokens_left = MAX_TOKENS

    def charge(self, count: int) -> None:
        """Pay for `count` bytes; raises CheckpointError when there are none left."""
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise CheckpointError("the checkpoint unfolds to much more data than the file holds")

    def token(self, count: int = 1) -> None:
        """Pay for `count` tokens of a pickle or values of JSON; raises CheckpointError when there are none left."""
        self.tokens_left -= count
        if self.tokens_left < 0:
            raise CheckpointError(f"the checkpoint has more than {MAX_TOKENS} tokens")

    def parse_json(self, text: str | bytes, what: str) -> Any:
        """What JSON says, paid for before it is made.

        Args:
            text: the JSON.
            what: its name in errors.

        Raises:
            CheckpointError: no valid JSON, a key given twice, an integer of more than 20 digits, or too many values.
        """
        try:
            text = text if isinstance(text, str) else text.decode()
            values = sum(map(text.count, "[{,:"))
            self.token(values)
            self.charge(OBJECT * values + len(text))
            return json.loads(text, parse_int=_integer, object_pairs_hook=_without_repetition)
        except CheckpointError as error:
            raise CheckpointError(f"{what}: {error}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{what} is not valid JSON") from error


def _integer(digits: str) -> int:
    if len(digits) > _LONGEST_INTEGER:
        raise CheckpointError(f"an integer of {len(digits)} digits")
    return int(digits)


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise CheckpointError("a key is given twice")
    return made


class AllocationLimit(TorchFunctionMode):
    """Refuses tensors and modules that a constructor makes beyond what the budget allows, before they take memory.

    Args:
        budget: pays for them.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self.budget = budget

    def __enter__(self) -> AllocationLimit:
        self.handles = [
            registration.register_module_module_registration_hook(self._pay),
            registration.register_module_parameter_registration_hook(self._pay),
            registration.register_module_buffer_registration_hook(self._pay),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for handle in self.handles:
            handle.remove()

    def _pay(self, module: nn.Module, name: str, part: Any) -> None:
        self.budget.charge(_MODULE)

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
