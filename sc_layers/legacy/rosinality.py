"""Checkpoints of rosinality's stylegan2-pytorch: state dicts, optimiser states and the command line, by `torch.save`.

Source: the layout that its `train.py` writes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .errors import CheckpointError
from .networks import NetworkRecord
from .records import Record

_NETWORKS = {"g": "G", "d": "D", "g_ema": "G_ema"}


def is_rosinality(content: Any) -> bool:
    """Whether an unpickled file has the generator under the name that this program uses."""
    return isinstance(content, dict) and isinstance(content.get("g_ema"), dict)


def _state_of(name: str, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{name} is not a state dict")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"the state dict {name} holds something else than tensors")
    return state


def _arguments(options: dict[str, Any], state: dict[str, Tensor], generator: bool) -> dict[str, Any]:
    """Keyword arguments of the class, from the command line that was used.

    Checkpoints converted from TensorFlow come without one: then size and depth show in the tensors' names.
    """
    if generator:
        noises = sum(name.startswith("noises.") for name in state)
        depth = sum(name.startswith("style.") and name.endswith(".weight") for name in state)
        kwargs = {"size": 2 ** (2 + noises // 2), "style_dim": 512, "n_mlp": depth}
        names = {"size": "size", "style_dim": "latent", "n_mlp": "n_mlp"}
    else:
        blocks = len({name.split(".")[1] for name in state if name.startswith("convs.")})
        kwargs, names = {"size": 2 ** (1 + blocks)}, {"size": "size"}
    kwargs["channel_multiplier"] = 2
    names["channel_multiplier"] = "channel_multiplier"
    return {key: options.get(names[key], value) for key, value in kwargs.items()}


def networks_of(content: dict[str, Any]) -> dict[str, Any]:
    """The networks of such a file as records, and `meta`, which holds the command line.

    Raises:
        CheckpointError: something that should be a state dict is not one.
    """
    args = content.get("args")
    options = args.state if isinstance(args, Record) and args.name == "Namespace" else {}
    if not isinstance(options, dict):
        raise CheckpointError("the stored command line is not a set of options")
    networks: dict[str, Any] = {}
    for key, name in _NETWORKS.items():
        if key in content:
            state = _state_of(key, content[key])
            kind = "Discriminator" if key == "d" else "Generator"
            networks[name] = NetworkRecord(kind, (), _arguments(options, state, key != "d"), state)
    return {**networks, "meta": {"format": "rosinality", "args": dict(options)}}
