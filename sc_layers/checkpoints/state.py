"""Our own three file formats: networks as configuration and tensors, to bytes and back."""

from __future__ import annotations

import io
import json
import math
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import __version__
from . import safetensors
from .errors import CheckpointError
from .networks import NetworkRecord, check_state
from .pickles.limits import AllocationLimit, Budget
from .pickles.records import Record, settle

NETWORKS = ("G", "D", "G_ema", "Q", "Q_ema")
KINDS = {"Generator": "GeneratorConfig", "Discriminator": "DiscriminatorConfig", "Recognizer": "RecognizerConfig"}
FORMAT_KEY = "sc_layers"
_FORMAT_VERSION = 1
_DNNLIB_NETWORKS = ("G", "D", "G_ema")
_REBUILD = ("sc_layers.checkpoints.read", "rebuild_network")
_RECORD = "record"
_LARGEST_NUMBER = 65536
_MOST_UPSAMPLINGS = 32
_FEW_MODULES = 100


@dataclass
class NetworkState:
    """One of our networks as data: the name of its class, its configuration as a dict, its state dict."""

    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, name: str, network: nn.Module) -> NetworkState:
        kind = type(network).__name__
        if kind not in KINDS or not type(network).__module__.startswith("sc_layers."):
            raise TypeError(f"{name} must be a {' or '.join(KINDS)} of sc_layers, got {type(network)!r}")
        config: Any = network.config
        return cls(kind, config.to_dict(), network.state_dict())

    def build(self, budget: Budget, impl: str = "auto") -> nn.Module:
        """The network, in evaluation mode and without gradients.

        Tensors much larger than the file, that its configuration asks for, are refused before they take memory.

        Args:
            budget: pays for the tensors.
            impl: of the generator's constriction layers.

        Raises:
            CheckpointError: an unknown class, an invalid configuration, or tensors that do not fit it.
        """
        if self.kind not in KINDS:
            raise CheckpointError(f"unknown class of network {self.kind!r:.80}, expected {', '.join(KINDS)}")
        check_module_list(self.config.get("module_list", ""), len(self.state))
        try:
            with torch.random.fork_rng(devices=[]), AllocationLimit(budget):
                network = _make(self.kind, self.config, impl)
        except CheckpointError:
            raise
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(f"the configuration of the {self.kind} is not valid: {error!s:.500}") from error
        check_state(self.kind, network.state_dict(), self.state)
        network.load_state_dict(self.state)
        return network.eval().requires_grad_(False)


AnyNetwork = NetworkState | NetworkRecord


def _make(kind: str, config: Mapping[str, Any], impl: str) -> nn.Module:
    from .. import models

    options = {"impl": impl} if kind == "Generator" else {}
    fields = getattr(models, KINDS[kind]).from_dict(dict(config))
    network: nn.Module = getattr(models, kind)(fields, **options)
    return network


def check_module_list(text: Any, num_tensors: int) -> None:
    """Refuse a module list that is larger than the stored tensors allow, before it is unfolded.

    Raises:
        CheckpointError: more layers than tensors, or numbers that no network has.
    """
    if not isinstance(text, str):
        raise CheckpointError(f"the module list is a {type(text).__name__}, expected text")
    numbers = [int(digits) for digits in re.findall(r"\d{1,18}", text)]
    layers = [int(digits) for digits in re.findall(r"(?:Conv-(?:up|down|id)|Noise)-(\d{1,18})", text)]
    upsamplings = [int(digits) for digits in re.findall(r"Conv-up-(\d{1,18})", text)]
    if max(numbers, default=0) > _LARGEST_NUMBER or sum(upsamplings) > _MOST_UPSAMPLINGS:
        raise CheckpointError(f"the module list asks for more than any network has: {text:.200}")
    if sum(layers) + text.count(",") > 2 * num_tensors + _FEW_MODULES:
        raise CheckpointError(f"the module list is too long for {num_tensors} tensors")


def _described(network: AnyNetwork) -> dict[str, Any]:
    """What a network is besides its tensors."""
    if isinstance(network, NetworkState):
        return {"kind": network.kind, "config": dict(network.config)}
    return {
        "kind": _RECORD,
        "class_name": network.class_name,
        "args": list(network.args),
        "kwargs": network.kwargs,
        "computed": list(network.computed),
        "attachment": network.attachment,
    }


def write_safetensors(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> bytes:
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state.items()}
    parts = {name: _described(net) for name, net in networks.items()}
    description = {"version": _FORMAT_VERSION, "program": __version__, "networks": parts, "meta": meta}
    return safetensors.dump(tensors, {"format": "pt", FORMAT_KEY: json.dumps(description)})


def write_pt(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> bytes:
    parts = {name: {**_described(net), "state": dict(net.state)} for name, net in networks.items()}
    content = {FORMAT_KEY: _FORMAT_VERSION, "program": __version__, "networks": parts, "meta": meta}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


class _NetworkPickler(pickle.Pickler):
    """Pickles our networks as a call of `rebuild_network` with configuration and tensors."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, NetworkState):
            return NotImplemented
        from . import rebuild_network

        return rebuild_network, (obj.kind, dict(obj.config), dict(obj.state))


def write_pkl(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> bytes:
    missing = [name for name in _DNNLIB_NETWORKS if name not in networks]
    if missing:
        raise ValueError(f"a .pkl in the dnnlib style needs G, D and G_ema; missing: {', '.join(missing)}")
    foreign = [name for name, network in networks.items() if not isinstance(network, NetworkState)]
    if foreign:
        raise ValueError(f"a .pkl in the dnnlib style holds our networks only, not {', '.join(foreign)}")
    kwargs = meta.get("training_set_kwargs")
    content = {**networks, "training_set_kwargs": kwargs, "augment_pipe": None, "meta": meta}
    buffer = io.BytesIO()
    _NetworkPickler(buffer, protocol=4).dump(content)
    return buffer.getvalue()


def is_pkl(content: Any) -> bool:
    """Whether an unpickled file is one of `write_pkl`."""
    return isinstance(content, dict) and any(
        isinstance(value, Record) and (value.module, value.name) == _REBUILD for value in content.values()
    )


def read_pkl(content: Mapping[str, Any]) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    networks: dict[str, AnyNetwork] = {}
    for name, value in content.items():
        if name in NETWORKS:
            if not isinstance(value, Record) or (value.module, value.name) != _REBUILD or len(value.args) != 3:
                raise CheckpointError(f"{name} is not a network of ours")
            kind, config, state = value.args
            networks[name] = _state_of(name, {"kind": kind, "config": config}, state)
    return networks, _meta_of(content)


def read_pt(content: Mapping[str, Any]) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    parts = content.get("networks")
    if not isinstance(parts, dict) or not all(isinstance(part, dict) for part in parts.values()):
        raise CheckpointError("the file does not describe its networks")
    _check_version(content.get(FORMAT_KEY))
    return {name: _state_of(name, part, part.get("state")) for name, part in parts.items()}, _meta_of(content)


def read_safetensors(data: bytes, budget: Budget) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    tensors, metadata = safetensors.load(data)
    if FORMAT_KEY not in metadata:
        raise CheckpointError("this safetensors file was not written by sc_layers")
    try:
        description = json.loads(metadata[FORMAT_KEY])
    except (ValueError, RecursionError) as error:
        raise CheckpointError("the configuration in the safetensors metadata is not valid JSON") from error
    description = settle(description, budget)
    if not isinstance(description, dict) or not isinstance(description.get("networks"), dict):
        raise CheckpointError("the file does not describe its networks")
    _check_version(description.get("version"))
    states: dict[str, dict[str, Tensor]] = {name: {} for name in description["networks"]}
    for key, value in tensors.items():
        name, _, rest = key.partition(".")
        if name not in states:
            raise CheckpointError(f"the tensor {key!r:.80} belongs to no network")
        states[name][rest] = value
    networks = {name: _state_of(name, part, states[name]) for name, part in description["networks"].items()}
    return networks, _meta_of(description)


def _check_version(version: Any) -> None:
    if version != _FORMAT_VERSION:
        raise CheckpointError(f"the file has version {version!r:.40} of the format, known is {_FORMAT_VERSION}")


def _meta_of(description: Mapping[str, Any]) -> dict[str, Any]:
    meta = description.get("meta", {})
    if not isinstance(meta, dict):
        raise CheckpointError("meta is not a mapping")
    return meta


def _state_of(name: Any, part: Any, state: Any) -> AnyNetwork:
    if name not in NETWORKS:
        raise CheckpointError(f"the file describes {name!r:.80}, which is none of {', '.join(NETWORKS)}")
    if not isinstance(part, dict) or not isinstance(state, dict):
        raise CheckpointError(f"{name} lacks its configuration or its tensors")
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise CheckpointError(f"the state of {name} holds something else than tensors")
    if part.get("kind") == _RECORD:
        return _record_of(name, part, state)
    config = part.get("config")
    if not isinstance(config, dict) or not all(isinstance(key, str) for key in config):
        raise CheckpointError(f"{name} lacks its configuration")
    return NetworkState(str(part.get("kind")), config, state)


def _record_of(name: str, part: dict[str, Any], state: dict[str, Tensor]) -> NetworkRecord:
    kinds = {"class_name": str, "args": list, "kwargs": dict, "computed": list}
    if not all(isinstance(part.get(key), kind) for key, kind in kinds.items()):
        raise CheckpointError(f"{name} lacks {', '.join(kinds)}")
    attachment = part.get("attachment")
    if not all(isinstance(key, str) for key in part["kwargs"]) or not isinstance(attachment, (dict, type(None))):
        raise CheckpointError(f"the arguments of {name} are not valid")
    computed = tuple(str(key) for key in part["computed"])
    return NetworkRecord(part["class_name"], tuple(part["args"]), part["kwargs"], state, computed, attachment)


def num_parameters(state: Mapping[str, Tensor]) -> int:
    """Numbers that a state dict holds."""
    return sum(math.prod(tensor.shape) for tensor in state.values())
