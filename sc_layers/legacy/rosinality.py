"""Checkpoints of rosinality's stylegan2-pytorch: state dicts, optimiser states and the command line, by `torch.save`.

Source: the layout that its `train.py` writes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .errors import CheckpointError
from .networks import NetworkRecord
from .records import Record

_GATES = ".constriction.gate_weight_h"
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


def _size_of(state: dict[str, Tensor], name: str, index: int, default: int) -> int:
    return state[name].shape[index] if name in state and state[name].ndim > index else default


def _generator_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of the generator, as its tensors show them."""
    noises = sum(name.startswith("noises.") for name in state)
    depth = sum(name.startswith("style.") and name.endswith(".weight") for name in state)
    return {
        "size": 2 ** (2 + min(noises, 60) // 2),
        "style_dim": _size_of(state, "style.1.weight", 0, 512),
        "n_mlp": depth,
        "channel_multiplier": _size_of(state, "convs.6.conv.weight", 1, 512) // 256,
    }


def _attachment(state: dict[str, Tensor]) -> dict[str, Any] | None:
    """Arguments with which spatial constriction was attached, as its tensors show them, coarse to fine."""
    gates = {name.removesuffix(_GATES): tensor for name, tensor in state.items() if name.endswith(_GATES)}
    if not gates or any(tensor.ndim != 5 for tensor in gates.values()):
        return None
    layers = sorted(gates, key=lambda name: gates[name].shape[3])
    shapes = [gates[name].shape for name in layers]
    return {
        "num_codes": sum(shape[0] for shape in shapes),
        "layers": layers,
        "num_rects": shapes[0][1],
        "codes_per_group": shapes[0][0],
    }


def _discriminator_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of the discriminator, as its tensors show them."""
    blocks = len({name.split(".")[1] for name in state if name.startswith("convs.")})
    size = 2 ** (1 + min(blocks, 60))
    multiplier = _size_of(state, "convs.0.0.weight", 0, 0) * size // 16384 if size > 32 else 2
    return {"size": size, "channel_multiplier": multiplier}


def networks_of(content: dict[str, Any]) -> tuple[dict[str, NetworkRecord], dict[str, Any]]:
    """The networks of such a file as records, and `meta`, which holds the command line.

    Raises:
        CheckpointError: something that should be a state dict is not one.
    """
    args = content.get("args")
    options = args.state if isinstance(args, Record) and args.name == "Namespace" else {}
    if not isinstance(options, dict):
        raise CheckpointError("the stored command line is not a set of options")
    networks: dict[str, NetworkRecord] = {}
    for key, name in _NETWORKS.items():
        if key in content:
            state = _state_of(key, content[key])
            if key == "d":
                networks[name] = NetworkRecord("Discriminator", (), _discriminator_arguments(state), state)
            else:
                arguments, attachment = _generator_arguments(state), _attachment(state)
                networks[name] = NetworkRecord("Generator", (), arguments, state, attachment=attachment)
    return networks, {"args": dict(options)}
