"""Reading pickles made by the tests with our machine."""

from __future__ import annotations

import io
import pickle
from typing import Any

from sc_layers.checkpoints.pickles.limits import Budget
from sc_layers.checkpoints.pickles.machine import Machine
from sc_layers.checkpoints.pickles.names import names
from sc_layers.checkpoints.pickles.records import settle
from sc_layers.checkpoints.pickles.torch_files import read_storage

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes) -> Any:
    """What a pickle holds, settled."""
    budget = Budget(len(data))
    return settle(Machine(names(budget, read_storage), budget).run(io.BytesIO(data)), budget)


def there_and_back(value: Any, protocol: int) -> Any:
    """`value` by way of Python's own pickler and our machine."""
    return read(pickle.dumps(value, protocol))
