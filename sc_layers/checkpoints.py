"""Loading and saving networks: files are recognised by their content and written by their extension."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from . import __version__
from .legacy import safetensors
from .legacy.errors import CheckpointError

NETWORKS = ("G", "D", "G_ema", "Q", "Q_ema")
_FORMAT_KEY = "sc_layers"
_FORMAT_VERSION = 1
_KINDS = {
    "Generator": "GeneratorConfig",
    "Discriminator": "DiscriminatorConfig",
    "Recognizer": "RecognizerConfig",
}


@dataclass
class NetworkState:
    """One of our networks as data: the name of its class, its configuration as a dict, its state dict."""

    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, name: str, network: nn.Module) -> NetworkState:
        kind = type(network).__name__
        if kind not in _KINDS or not type(network).__module__.startswith("sc_layers."):
            raise TypeError(f"{name} must be a {' or '.join(_KINDS)} of sc_layers, got {type(network)!r}")
        return cls(kind, network.config.to_dict(), network.state_dict())  # type: ignore[union-attr, operator]

    def build(self) -> nn.Module:
        """The network, in evaluation mode and without gradients.

        The shapes that the configuration asks for are compared with the stored ones before memory is taken.

        Raises:
            CheckpointError: an unknown class, an invalid configuration, or tensors that do not fit it.
        """
        if self.kind not in _KINDS:
            raise CheckpointError(f"unknown class of network {self.kind!r:.80}, expected {', '.join(_KINDS)}")
        from . import models

        make = getattr(models, self.kind)
        try:
            config = getattr(models, _KINDS[self.kind]).from_dict(dict(self.config))
            with torch.device("meta"):
                outline = make(config).state_dict()
        except (ValueError, TypeError, KeyError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(f"the configuration of the {self.kind} is not valid: {error}") from error
        check_state(self.kind, outline, self.state)
        with torch.random.fork_rng(devices=[]):
            network: nn.Module = make(config)
        network.load_state_dict(self.state)
        return network.eval().requires_grad_(False)


def check_state(what: str, expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Compare names and shapes of a stored state with the expected ones, and name every difference.

    Raises:
        CheckpointError: something is missing, left over, or of another shape.
    """
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name:.200} is not part of it" for name in state if name not in expected]
    problems += [
        f"{name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"the stored tensors do not fit the {what}: " + "; ".join(problems))


def _write_safetensors(networks: Mapping[str, NetworkState], meta: Mapping[str, Any]) -> bytes:
    tensors = {f"{name}.{key}": value for name, net in networks.items() for key, value in net.state.items()}
    kinds = {name: {"kind": net.kind, "config": net.config} for name, net in networks.items()}
    description = {"version": _FORMAT_VERSION, "program": __version__, "networks": kinds, "meta": meta}
    return safetensors.dump(tensors, {"format": "pt", _FORMAT_KEY: json.dumps(description)})


def _read_safetensors(data: bytes) -> dict[str, Any]:
    tensors, metadata = safetensors.load(data)
    if _FORMAT_KEY not in metadata:
        raise CheckpointError("this safetensors file was not written by sc_layers")
    try:
        description = json.loads(metadata[_FORMAT_KEY])
    except (ValueError, RecursionError) as error:
        raise CheckpointError("the configuration in the safetensors metadata is not valid JSON") from error
    states: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        name, _, rest = key.partition(".")
        states.setdefault(name, {})[rest] = value
    return _networks_of(description, states)


def _write_pt(networks: Mapping[str, NetworkState], meta: Mapping[str, Any]) -> bytes:
    parts = {name: {"kind": net.kind, "config": net.config, "state": dict(net.state)} for name, net in networks.items()}
    content = {_FORMAT_KEY: _FORMAT_VERSION, "program": __version__, "networks": parts, "meta": meta}
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _networks_of(description: Any, states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Build what a file of ours describes, given the state dicts that it holds."""
    if not isinstance(description, dict) or not isinstance(description.get("networks"), dict):
        raise CheckpointError("the file does not describe its networks")
    version = description.get("version")
    if version != _FORMAT_VERSION:
        raise CheckpointError(f"the file has version {version!r:.40} of the format, known is {_FORMAT_VERSION}")
    meta = description.get("meta", {})
    if not isinstance(meta, dict):
        raise CheckpointError("meta is not a mapping")
    loaded: dict[str, Any] = {}
    for name, part in description["networks"].items():
        if name not in NETWORKS or not isinstance(part, dict) or not isinstance(part.get("config"), dict):
            raise CheckpointError(f"the file describes {name!r:.80}, which is none of {', '.join(NETWORKS)}")
        loaded[name] = NetworkState(str(part.get("kind")), part["config"], states.get(name, {})).build()
    return {**loaded, "meta": meta}


_Writer = Callable[[Mapping[str, NetworkState], Mapping[str, Any]], bytes]
_WRITERS: dict[str, _Writer] = {".safetensors": _write_safetensors, ".pt": _write_pt}


def _replace_file(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a reader never sees half a file."""
    handle, temporary = tempfile.mkstemp(prefix=path.name, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def save_network(
    path: str | os.PathLike[str],
    *,
    G: nn.Module | None = None,
    D: nn.Module | None = None,
    G_ema: nn.Module | None = None,
    Q: nn.Module | None = None,
    Q_ema: nn.Module | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Save networks in one file, in the format that the extension of `path` names.

    Args:
        path: `.safetensors` (recommended; the configuration is JSON in its metadata) or `.pt` (a state that
            `torch.load` reads with `weights_only=True`).
        G: generator in training.
        D: discriminator.
        G_ema: moving average of the generator's weights, the one to draw images with.
        Q: recogniser.
        Q_ema: its moving average.
        meta: anything that JSON can hold.

    Raises:
        ValueError: an unknown extension, or no network at all.
        TypeError: a network that is not ours, or `meta` that JSON cannot hold.
        FileNotFoundError: the folder of `path` does not exist.
    """
    path = Path(path)
    if path.suffix not in _WRITERS:
        raise ValueError(f"the extension must be one of {', '.join(_WRITERS)}, got {path.name!r}")
    given = {"G": G, "D": D, "G_ema": G_ema, "Q": Q, "Q_ema": Q_ema}
    networks = {name: NetworkState.of(name, net) for name, net in given.items() if net is not None}
    if not networks:
        raise ValueError(f"nothing to save: give at least one of {', '.join(NETWORKS)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {str(path.parent)!r} does not exist")
    meta = json.loads(json.dumps(dict(meta or {})))
    _replace_file(path, _WRITERS[path.suffix](networks, meta))


def _read(source: str | os.PathLike[str] | IO[bytes]) -> bytes:
    if isinstance(source, (str, os.PathLike)):
        return Path(source).read_bytes()
    return source.read()


def load_network(source: str | os.PathLike[str] | IO[bytes]) -> dict[str, Any]:
    """Load networks from a file; nothing in the file is ever run.

    Args:
        source: path, or a file open for reading bytes.

    Returns:
        The networks that the file holds under `"G"`, `"D"`, `"G_ema"`, `"Q"`, `"Q_ema"`, in evaluation mode and
        without gradients, and `"meta"`. What the file lacks is absent.

    Raises:
        FileNotFoundError: no such file.
        CheckpointError: damaged, of an unknown format, or not fitting our networks.
        UntrustedCheckpointError: it asks for a name that no checkpoint needs.
    """
    data = _read(source)
    if safetensors.looks_like(data):
        return _read_safetensors(data)
    if data[:4] == b"PK\x03\x04":
        return _read_pt(data)
    raise CheckpointError(f"unknown format of checkpoint: the file starts with {data[:8]!r}")


def _read_pt(data: bytes) -> dict[str, Any]:
    content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    if not isinstance(content, dict) or _FORMAT_KEY not in content:
        raise CheckpointError("this .pt file was not written by sc_layers")
    states = {name: part["state"] for name, part in content["networks"].items()}
    return _networks_of({**content, "version": content[_FORMAT_KEY]}, states)
