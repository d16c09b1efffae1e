"""Checkpoints of rosinality's stylegan2-pytorch: state dicts, optimiser states and the command line, by `torch.save`.

Source: the layout that its `train.py` writes.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..errors import CheckpointError
from ..networks import NetworkRecord
from ..pickles.records import Record
from ..state import AnyNetwork, NetworkState

_GATES = ".constriction.gate_weight_h"
_GENERATORS = {"g": "G", "g_ema": "G_ema"}


def is_rosinality(content: Any) -> bool:
    """Whether `content`, an unpickled file, has the generator under the name that this program uses."""
    return isinstance(content, dict) and isinstance(content.get("g_ema"), dict)


def _state_of(name: str, state: Any) -> dict[str, Tensor]:
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise CheckpointError(f"{name} is not a state dict")
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"the state dict {name} holds something else than tensors")
    return state


def _size_of(state: dict[str, Tensor], name: str, index: int, default: int) -> int:
    return state[name].shape[index] if name in state and state[name].ndim > index else default


def _makes_wavelets(state: dict[str, Tensor]) -> bool:
    """Whether a network is SWAGAN's, which works on wavelet coefficients at half the size of the images."""
    return any(".iwt." in name for name in state)


def _blocks(state: dict[str, Tensor], prefix: str) -> int:
    """Modules of a list with tensors; no image has as many as 60 doublings."""
    return min(60, len({name.split(".", 2)[1] for name in state if name.startswith(prefix)}))


def _generator_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of the generator, as its tensors show them.

    Beyond 4x4 every doubling has two convolutions and a layer to RGB; older files have no noises to count.
    """
    doublings = max(_blocks(state, "to_rgbs."), _blocks(state, "convs.") // 2)
    depth = sum(name.startswith("style.") and name.endswith(".weight") for name in state)
    return {
        "size": 2 ** (2 + doublings + _makes_wavelets(state)),
        "style_dim": _size_of(state, "style.1.weight", 0, 512),
        "n_mlp": depth,
        "channel_multiplier": _size_of(state, "convs.6.conv.weight", 1, 512) // 256,
    }


def _drawn_noises(state: dict[str, Tensor]) -> tuple[str, ...]:
    """Names of the fixed noises, where a file comes from before they were kept: the class draws its own."""
    if any(name.startswith("noises.") for name in state):
        return ()
    return tuple(f"noise_{index}" for index in range(1 + _blocks(state, "convs.")))


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
    }


def _discriminator_arguments(state: dict[str, Tensor]) -> dict[str, Any]:
    """Keyword arguments of the discriminator, as its tensors show them."""
    wavelets = _makes_wavelets(state)
    size = 2 ** ((3 if wavelets else 1) + _blocks(state, "convs."))
    width = _size_of(state, "convs.0.conv1.0.weight", 1, 0) if wavelets else _size_of(state, "convs.0.0.weight", 0, 0)
    multiplier = width * size // 16384 if size > 32 else 2
    return {"size": size, "channel_multiplier": multiplier}


def _recognizer(state: dict[str, Tensor]) -> NetworkState:
    """Our recogniser, which the patched training script keeps beside the networks; its tensors show what it is."""
    width = _size_of(state, "conv.weight", 0, 0)
    config = {
        "resolution": 4 * 2 ** _blocks(state, "blocks."),
        "num_channels": _size_of(state, "from_rgb.weight", 1, 3),
        "num_codes": _size_of(state, "output.weight", 0, 0),
        "minibatch_std": _size_of(state, "conv.weight", 1, 0) > width,
    }
    return NetworkState("Recognizer", config, state)


def networks_of(content: dict[str, Any]) -> tuple[dict[str, AnyNetwork], dict[str, Any]]:
    """The networks of such a file as records, our recogniser where there is one, and `meta` with the command line.

    Args:
        content: what the file held.

    Raises:
        CheckpointError: something that should be a state dict is not one.
    """
    args, attached = content.get("args"), content.get("sc")
    options = args.state if isinstance(args, Record) and args.name == "Namespace" else {}
    if not isinstance(options, dict) or not isinstance(attached, (dict, type(None))):
        raise CheckpointError("the stored command line is not a set of options")
    networks: dict[str, AnyNetwork] = {}
    for key, name in _GENERATORS.items():
        if key in content:
            state = _state_of(key, content[key])
            attachment = _attachment(state) if attached is None else attached
            arguments = _generator_arguments(state)
            networks[name] = NetworkRecord(
                "Generator", (), arguments, state, computed=_drawn_noises(state), attachment=attachment
            )
    if "d" in content:
        state = _state_of("d", content["d"])
        networks["D"] = NetworkRecord("Discriminator", (), _discriminator_arguments(state), state)
    if "q" in content:
        networks["Q"] = _recognizer(_state_of("q", content["q"]))
    return networks, {"args": dict(options)}
