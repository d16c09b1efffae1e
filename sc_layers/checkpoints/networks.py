"""Networks of other programs as data, and rebuilding them with the user's own classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from ..attach import attach_spatial_constriction
from ..messages import shown
from .errors import CheckpointError
from .pickles.limits import OBJECT, AllocationLimit, Budget
from .pickles.records import Record

MAX_MODULES = 20_000
_MOST_CODES = 4096
_MOST_PROBLEMS = 10  # that a message lists
Classes = ModuleType | Mapping[str, type] | Iterable[ModuleType]


@dataclass(eq=False)
class NetworkRecord:
    """A network that a file holds, without code: its class by name, its arguments, its state dict.

    Attributes:
        class_name: name of the class in the program that wrote the file.
        args: positional arguments that it was made with.
        kwargs: keyword arguments that it was made with.
        state: parameters and buffers by dotted name.
        computed: last parts of the names of buffers that the class computes itself and the file does not hold.
        attachment: arguments of `attach_spatial_constriction`, where constriction had been attached to it.
    """

    class_name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: dict[str, Tensor] = field(repr=False)
    computed: tuple[str, ...] = ()
    attachment: dict[str, Any] | None = None


def check_state(what: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of a stored state with the expected ones, and name the first ten differences.

    Args:
        what: name of the network, for the error.
        expected: the state dict of the network that was made.
        state: the stored one.

    Raises:
        CheckpointError: something is missing, left over, or of another shape.
    """
    problems = [(name, "is missing") for name in expected if name not in state]
    problems += [(name, "is not part of it") for name in state if name not in expected]
    problems += [
        (name, f"has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}")
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        listed = [f"{name:.100} {problem}" for name, problem in problems[:_MOST_PROBLEMS]]
        more = len(problems) - len(listed)
        listed += [f"and {more:,} more"] if more else []
        raise CheckpointError(f"the stored tensors do not fit the {what:.80}: {'; '.join(listed)}")


def budget_of(state: Mapping[str, Tensor]) -> Budget:
    """What making a network with the tensors of `state` may cost."""
    return Budget(sum(tensor.nbytes for tensor in state.values()))


def _tensors_in(state: Mapping[str, Any], key: str) -> Iterable[tuple[str, Tensor]]:
    entries = state.get(key)
    if not isinstance(entries, dict):
        raise CheckpointError(f"a module without {key}")
    for name, value in entries.items():
        if not isinstance(name, str) or not isinstance(value, (Tensor, type(None))):
            raise CheckpointError(f"{key} of a module holds a {type(value).__name__}")
        if value is not None:
            yield name, value


def module_state(record: Record, budget: Budget) -> dict[str, Tensor]:
    """The state dict of a pickled `nn.Module`: its parameters and persistent buffers, those of its parts included.

    Args:
        record: the module as the pickle held it.
        budget: pays for the names, which grow with the depth of the modules.

    Raises:
        CheckpointError: it is not a module, or has more parts than any network.
    """
    found: dict[str, Tensor] = {}
    waiting, visited = [("", record)], 0
    while waiting:
        prefix, module = waiting.pop()
        visited += 1
        if visited > MAX_MODULES:
            raise CheckpointError(f"a network of more than {MAX_MODULES} modules")
        state = module.state if isinstance(module, Record) else None
        if not isinstance(state, dict) or not isinstance(state.get("_modules"), dict):
            raise CheckpointError(f"{prefix:.80} is not a module" if prefix else "a network is not a module")
        transient = state.get("_non_persistent_buffers_set", set())
        tensors = dict(_tensors_in(state, "_parameters"))
        for name, value in _tensors_in(state, "_buffers"):
            if not isinstance(transient, set) or name not in transient:
                tensors[name] = value
        parts = {name: part for name, part in state["_modules"].items() if part is not None}
        if not all(isinstance(name, str) for name in parts):
            raise CheckpointError("a part of a module has a name that is no text")
        budget.token(len(tensors) + len(parts))
        budget.charge(sum(len(prefix) + len(name) + OBJECT for name in (*tensors, *parts)))
        found.update({prefix + name: value for name, value in tensors.items()})
        waiting += [(f"{prefix}{name}.", part) for name, part in reversed(parts.items())]
    return found


def _find_class(name: str, classes: Classes) -> type[nn.Module]:
    if isinstance(classes, Mapping):
        found = [classes[name]] if name in classes else []
    else:
        modules = [classes] if isinstance(classes, ModuleType) else list(classes)
        found = [vars(module)[name] for module in modules if name in vars(module)]
    if not found:
        raise CheckpointError(f"the given classes have no {shown(name)}")
    if not isinstance(found[0], type) or not issubclass(found[0], nn.Module):
        raise CheckpointError(f"{shown(name)} among the given classes is not a torch.nn.Module")
    return found[0]


def _attach(network: nn.Module, arguments: dict[str, Any]) -> None:
    numbers = [value for value in arguments.values() if isinstance(value, int)]
    if max(numbers, default=0) > _MOST_CODES:
        raise CheckpointError(f"constriction with {shown(max(numbers))} codes or rectangles")
    attach_spatial_constriction(network, init="random", **arguments)


def rebuild(record: NetworkRecord, classes: Classes) -> nn.Module:
    """Make the network with a class of the user's own, looked up by name, and give it the stored tensors.

    The class is called with the arguments in the file, which are plain data; tensors much larger than the file are
    refused.

    Args:
        record: what the file held.
        classes: a module, several modules, or classes by name.

    Raises:
        CheckpointError: no such class, arguments that it refuses, or tensors that do not fit.
    """
    make = _find_class(record.class_name, classes)
    try:
        with torch.random.fork_rng(devices=[]), AllocationLimit(budget_of(record.state)):
            network = make(*record.args, **record.kwargs)
            if record.attachment is not None:
                _attach(network, record.attachment)
    except CheckpointError:
        raise
    except Exception as error:  # whatever the user's class raises for arguments that it does not take
        raise CheckpointError(f"{record.class_name:.80} refuses the stored arguments: {error!s:.500}") from error
    made = network.state_dict()
    computed = {name: tensor for name, tensor in made.items() if name.rpartition(".")[2] in record.computed}
    expected = {name: tensor for name, tensor in made.items() if name not in computed}
    check_state(record.class_name, expected, record.state)
    network.load_state_dict({**record.state, **computed})
    return network.eval().requires_grad_(False)
