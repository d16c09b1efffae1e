"""TensorFlow pickles: tuples of `dnnlib.tflib.network.Network`, read without TensorFlow and dnnlib.

The authors' networks become ours. StyleGAN2's own are given as arguments and tensors under the names that
stylegan2-ada-pytorch uses, so that its classes can be rebuilt.

Source: the state that the class pickles itself as (versions up to 4), and SPEC, snapshot tuple.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ...messages import shown
from ..errors import CheckpointError
from ..networks import NetworkRecord
from ..pickles.limits import AllocationLimit, Budget
from ..pickles.records import Record
from ..state import NetworkState, check_module_list
from .stylegan2_tf import BUILDERS, record_of

_LAYOUTS = {3: ("G", "D", "G_ema"), 4: ("G", "D", "Q", "G_ema"), 5: ("G", "D", "Q", "G_ema", "Q_ema")}
_KINDS = {"G": "Generator", "G_ema": "Generator", "D": "Discriminator", "Q": "Recognizer", "Q_ema": "Recognizer"}
_VERSIONS = (2, 3, 4)
_OUR_SCOPES = {"synthesis": "G_synthesis/", "mapping": "G_mapping/"}
_THEIR_SCOPES = {"synthesis": "synthesis/", "mapping": "mapping/"}
Variables = dict[str, npt.NDArray[Any]]


def is_tensorflow(content: Any) -> bool:
    """Whether `content`, an unpickled file, is a tuple of TensorFlow networks."""
    return (
        isinstance(content, (tuple, list))
        and len(content) > 0
        and all(isinstance(net, Record) and net.name == "Network" for net in content)
    )


def _state_of(network: Record) -> dict[str, Any]:
    state = network.state
    kinds = {"static_kwargs": dict, "components": dict, "build_func_name": str, "variables": list}
    if not isinstance(state, dict) or not all(isinstance(state.get(key), kind) for key, kind in kinds.items()):
        raise CheckpointError(f"a TensorFlow network without {', '.join(kinds)}")
    version = state.get("version")
    if not isinstance(version, (int, float)) or version not in _VERSIONS:
        raise CheckpointError(f"a TensorFlow network of version {shown(state.get('version'))}, known are 2 to 4")
    if not all(isinstance(name, str) for name in state["static_kwargs"]):
        raise CheckpointError("an argument of a TensorFlow network has a name that is no text")
    return state


def _own_variables(state: Mapping[str, Any]) -> Variables:
    variables: Variables = {}
    for entry in state["variables"]:
        if not isinstance(entry, (tuple, list)) or len(entry) != 2 or not isinstance(entry[0], str):
            raise CheckpointError("a variable is not a pair of name and value")
        if not isinstance(entry[1], (np.ndarray, np.generic, float)):
            raise CheckpointError(f"the variable {entry[0]:.80} is a {type(entry[1]).__name__}, expected an array")
        variables[entry[0]] = np.asarray(entry[1])
    return variables


def _variables_of(network: Record, scopes: Mapping[str, str]) -> Variables:
    """All variables of a network; those of its components under the component's scope."""
    state = _state_of(network)
    variables = _own_variables(state)
    for name, component in state["components"].items():
        if not isinstance(component, Record) or name not in scopes:
            raise CheckpointError(f"unknown component {shown(name)}, known are {', '.join(scopes)}")
        part = _state_of(component)
        if part["components"]:
            raise CheckpointError(f"the component {shown(name)} has components itself")
        variables.update({scopes[name] + key: value for key, value in _own_variables(part).items()})
    return variables


def _checked_arguments(state: Mapping[str, Any], num_variables: int) -> dict[str, Any]:
    """The network's arguments, when they are plain values and not more modules than the variables allow."""
    arguments: dict[str, Any] = dict(state["static_kwargs"])
    plain = (str, int, float, bool, type(None))
    for name, value in arguments.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(item, plain) for item in items):
            raise CheckpointError(f"the argument {name:.80} is no plain value")
    modules = arguments.get("module_list", "")
    check_module_list(",".join(map(str, modules)) if isinstance(modules, (list, tuple)) else modules, num_variables)
    return arguments


def _our_network(name: str, network: Record, budget: Budget) -> NetworkState:
    """One of the authors' networks; what its arguments ask for is compared with its variables before it is made."""
    from .tf_variables import config_from_tf, state_dict_from_tf

    fields, variables = _state_of(network), _variables_of(network, _OUR_SCOPES)
    budget.charge(sum(array.nbytes for array in variables.values()))
    arguments = _checked_arguments(fields, len(variables))
    try:
        config = config_from_tf(fields["build_func_name"], arguments)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise CheckpointError(f"{name} is no network of the authors: {error!s:.500}") from error
    kind = type(config).__name__.removesuffix("Config")
    if kind != _KINDS[name]:
        raise CheckpointError(f"a {kind} lies where the {_KINDS[name]} {name} should")
    try:
        with AllocationLimit(budget):
            state = state_dict_from_tf(config, variables)
    except CheckpointError:
        raise
    except (ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(f"{name} is no network of the authors: {error!s:.500}") from error
    return NetworkState(kind, config.to_dict(), state)


def networks_of(
    content: tuple[Record, ...], budget: Budget
) -> tuple[dict[str, NetworkState | NetworkRecord], dict[str, Any]]:
    """The networks of such a tuple, and `meta`.

    Args:
        content: what the file held.
        budget: pays for the tensors.

    Raises:
        CheckpointError: a tuple of another length, or networks that are neither the authors' nor StyleGAN2's.
    """
    if len(content) not in _LAYOUTS:
        raise CheckpointError(f"a tuple of {len(content)} TensorFlow networks, expected 3, 4 or 5")
    members = dict(zip(_LAYOUTS[len(content)], content, strict=True))
    functions = {name: _state_of(net)["build_func_name"].rpartition(".")[2] for name, net in members.items()}
    networks: dict[str, NetworkState | NetworkRecord] = {}
    if functions["G"] == "G_main":
        for name, net in members.items():
            if BUILDERS.get(functions[name]) != _KINDS[name]:
                raise CheckpointError(f"{name} was built by {functions[name]:.80}, which is not StyleGAN2's")
            arguments = _checked_arguments(_state_of(net), 0)
            networks[name] = record_of(functions[name], arguments, _variables_of(net, _THEIR_SCOPES))
        return networks, {"functions": functions}
    for name, net in members.items():
        networks[name] = _our_network(name, net, budget)
    return networks, {"functions": functions}
