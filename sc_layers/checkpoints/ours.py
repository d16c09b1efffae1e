"""Reading our own three file formats: from what a file holds to networks as data. `write` makes such files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..messages import shown
from . import safetensors
from .errors import CheckpointError
from .networks import NetworkRecord
from .pickles.limits import Budget
from .pickles.records import Record, settle
from .state import NETWORKS, AnyNetwork, NetworkState

FORMAT_KEY = "sc_layers"
FORMAT_VERSION = 1
TRAINING = "training"  # the key of what a training goes on from, beside its networks
RECORD = "record"  # the kind of a network of another program
REBUILD = ("sc_layers.checkpoints.read", "rebuild_network")  # what a `.pkl` calls to make a network


def is_pkl(content: Any) -> bool:
    """Whether `content`, an unpickled file, is one of `write.write_pkl`."""
    return isinstance(content, dict) and any(
        isinstance(value, Record) and (value.module, value.name) == REBUILD for value in content.values()
    )


def read_pkl(content: Mapping[str, Any]) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    """The networks by name, and meta, of what an unpickled `.pkl` holds.

    Args:
        content: the file's dict, in which networks are records of a call of `rebuild_network`.

    Raises:
        CheckpointError: something else stands where a network should be.
    """
    networks: dict[str, AnyNetwork] = {}
    for name, value in content.items():
        if name in NETWORKS:
            if not isinstance(value, Record) or (value.module, value.name) != REBUILD or len(value.args) != 3:
                raise CheckpointError(f"{name} is not a network of ours")
            kind, config, state = value.args
            networks[name] = _state_of(name, {"kind": kind, "config": config}, state)
    return networks, _meta_of(content)


def read_pt(content: Mapping[str, Any]) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    """The networks by name, and meta, of what a `.pt` holds.

    Args:
        content: the file's dict.

    Raises:
        CheckpointError: a version of the format that is not known, or networks that are not described.
    """
    parts = content.get("networks")
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise CheckpointError("the file does not describe its networks")
    _check_version(content.get(FORMAT_KEY))
    return {name: _state_of(name, part, part.get("state")) for name, part in parts.items()}, _meta_of(content)


def read_safetensors(data: bytearray, budget: Budget) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    """The networks by name, and meta, of a `.safetensors` file.

    Args:
        data: the file.
        budget: pays for what the metadata unfolds to.

    Raises:
        CheckpointError: damaged, written by another program, or of a version of the format that is not known.
    """
    tensors, metadata = safetensors.load(data, budget)
    if FORMAT_KEY not in metadata:
        raise CheckpointError("this safetensors file was not written by sc_layers")
    description = budget.parse_json(metadata[FORMAT_KEY], "the configuration in the safetensors metadata")
    description = settle(description, budget)
    if not isinstance(description, dict) or not isinstance(description.get("networks"), dict):
        raise CheckpointError("the file does not describe its networks")
    _check_version(description.get("version"))
    states: dict[str, dict[str, Tensor]] = {name: {} for name in description["networks"]}
    for key, value in tensors.items():
        name, _, rest = key.partition(".")
        if name not in states:
            raise CheckpointError(f"the tensor {shown(key)} belongs to no network")
        states[name][rest] = value
    networks = {name: _state_of(name, part, states[name]) for name, part in description["networks"].items()}
    return networks, _meta_of(description)


def _check_version(version: Any) -> None:
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointError(f"the file has version {shown(version)} of the format, known is {FORMAT_VERSION}")


def _meta_of(description: Mapping[str, Any]) -> dict[str, Any]:
    meta = description.get("meta", {})
    if not isinstance(meta, dict):
        raise CheckpointError("meta is not a mapping")
    return meta


def _state_of(name: Any, part: Any, state: Any) -> AnyNetwork:
    if not isinstance(name, str) or name not in NETWORKS:
        raise CheckpointError(f"the file describes {shown(name)}, which is none of {', '.join(NETWORKS)}")
    if not isinstance(part, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{name} lacks its configuration or its tensors")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise CheckpointError(f"the state of {name} holds something else than tensors")
    kind = part.get("kind")
    if not isinstance(kind, str):
        raise CheckpointError(f"the class of {name} is {shown(kind)}, expected a name")
    if kind == RECORD:
        return _record_of(name, part, state)
    config = part.get("config")
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise CheckpointError(f"{name} lacks its configuration")
    return NetworkState(kind, config, state)


def _record_of(name: str, part: dict[str, Any], state: dict[str, Tensor]) -> NetworkRecord:
    kinds = {"class_name": str, "args": list, "kwargs": dict, "computed": list}
    if not all(isinstance(part.get(key), kind) for key, kind in kinds.items()):
        raise CheckpointError(f"{name} lacks {', '.join(kinds)}")
    attachment = part.get("attachment")
    if not all(isinstance(key, str) for key in part["kwargs"]) or not isinstance(attachment, (dict, type(None))):
        raise CheckpointError(f"the arguments of {name} are not valid")
    if not all(isinstance(key, str) for key in part["computed"]):
        raise CheckpointError(f"the computed buffers of {name} are not named")
    return NetworkRecord(
        part["class_name"], tuple(part["args"]), part["kwargs"], state, tuple(part["computed"]), attachment
    )
