"""Saving networks in our own three file formats; `ours` reads them."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import __version__
from ..files import write_file
from . import safetensors
from .networks import NetworkRecord
from .ours import FORMAT_KEY, FORMAT_VERSION, RECORD
from .read import rebuild_network
from .state import NETWORKS, AnyNetwork, NetworkState

_DNNLIB_NETWORKS = ("G", "D", "G_ema")


def _described(network: AnyNetwork) -> dict[str, Any]:
    """What a network is besides its tensors."""
    if isinstance(network, NetworkState):
        return {"kind": network.kind, "config": dict(network.config)}
    return {
        "kind": RECORD,
        "class_name": network.class_name,
        "args": list(network.args),
        "kwargs": network.kwargs,
        "computed": list(network.computed),
        "attachment": network.attachment,
    }


def write_safetensors(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> bytes:
    """A `.safetensors` file: the tensors of `networks` by name, what they are and `meta` as JSON in its metadata."""
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state.items()}
    parts = {name: _described(net) for name, net in networks.items()}
    description = {"version": FORMAT_VERSION, "program": __version__, "networks": parts, "meta": meta}
    return safetensors.dump(tensors, {"format": "pt", FORMAT_KEY: json.dumps(description)})


def pt_content(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> dict[str, Any]:
    """What a `.pt` file of `networks` and `meta` holds: plain data and tensors."""
    parts = {name: {**_described(net), "state": dict(net.state)} for name, net in networks.items()}
    return {FORMAT_KEY: FORMAT_VERSION, "program": __version__, "networks": parts, "meta": meta}


def write_pt(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> bytes:
    """A `.pt` file of `networks` and `meta`, as `torch.load` reads with `weights_only`."""
    buffer = io.BytesIO()
    torch.save(pt_content(networks, meta), buffer)
    return buffer.getvalue()


class _NetworkPickler(pickle.Pickler):
    """Pickles our networks as a call of `rebuild_network` with configuration and tensors."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, NetworkState):
            return NotImplemented
        return rebuild_network, (obj.kind, dict(obj.config), dict(obj.state))


def write_pkl(networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> bytes:
    """A `.pkl` file in the style of dnnlib, which Python's own `pickle` opens where this package is installed.

    Args:
        networks: our networks by name, G, D and G_ema among them.
        meta: anything plain; its `training_set_kwargs` goes where stylegan2-ada looks for it.

    Raises:
        ValueError: one of the three is missing, or a network is another program's.
    """
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


_Writer = Callable[[Mapping[str, AnyNetwork], Mapping[str, Any]], bytes]
_WRITERS: dict[str, _Writer] = {".safetensors": write_safetensors, ".pt": write_pt, ".pkl": write_pkl}


def save_network(
    path: str | os.PathLike[str],
    *,
    G: nn.Module | NetworkRecord | None = None,
    D: nn.Module | NetworkRecord | None = None,
    G_ema: nn.Module | NetworkRecord | None = None,
    Q: nn.Module | NetworkRecord | None = None,
    Q_ema: nn.Module | NetworkRecord | None = None,
    P: nn.Module | NetworkRecord | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Save networks in one file, in the format that the extension of `path` names.

    Args:
        path: `.safetensors` (recommended; the configuration is JSON in its metadata), `.pt` (a state that
            `torch.load` reads with `weights_only=True`) or `.pkl` (the style of dnnlib, for stylegan2-ada's tools;
            opening it with Python's `pickle` imports sc_layers, and a stranger's pickle could run anything). A
            `NetworkRecord` of another program's network can go into the first two.
        G: generator in training.
        D: discriminator.
        G_ema: moving average of the generator's weights, the one to draw images with.
        Q: recogniser.
        Q_ema: moving average of the recogniser's weights.
        P: recogniser of pairs, which a regulariser trains.
        meta: anything that JSON can hold; `training_set_kwargs` of it goes where stylegan2-ada looks for it.

    Raises:
        ValueError: an unknown extension, no network at all, or a `.pkl` without G, D and G_ema.
        TypeError: a network that is not ours, or `meta` that JSON cannot hold.
        FileNotFoundError: the folder of `path` does not exist.
    """
    given = {"G": G, "D": D, "G_ema": G_ema, "Q": Q, "Q_ema": Q_ema, "P": P}
    networks: dict[str, AnyNetwork] = {}
    for name, net in given.items():
        if net is not None:
            networks[name] = net if isinstance(net, NetworkRecord) else NetworkState.of(name, net)
    write_contents(Path(path), networks, meta or {})


def write_contents(path: Path, networks: Mapping[str, AnyNetwork], meta: Mapping[str, Any]) -> None:
    """`save_network` of networks that are data already.

    Args:
        path: the file, whose extension names the format.
        networks: the networks by the names that the file gives them.
        meta: anything that JSON can hold.

    Raises:
        ValueError, TypeError, FileNotFoundError: see `save_network`.
    """
    if path.suffix not in _WRITERS:
        raise ValueError(f"the extension must be one of {', '.join(_WRITERS)}, got {path.name!r}")
    if not networks:
        raise ValueError(f"nothing to save: give at least one of {', '.join(NETWORKS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist")
    write_file(path, _WRITERS[path.suffix](networks, json.loads(json.dumps(dict(meta)))))
