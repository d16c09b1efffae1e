"""Loading networks: a file is recognised by its content, and nothing in it is run."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import IO, Any

from torch import Tensor, nn

from ..files import read_file
from . import ours, safetensors
from .errors import CheckpointError, naming
from .foreign import nvlabs, rosinality, tensorflow
from .networks import Classes, rebuild
from .pickles import torch_files
from .pickles.limits import Budget
from .pickles.machine import Machine
from .pickles.names import names
from .pickles.records import settle
from .state import AnyNetwork, NetworkState

_PICKLE_START = b"\x80"
_OTHER_FORMATS = {
    b"\x1f\x8b": "gzip, unpack it first",
    b"\xfd7zXZ": "xz, unpack it first",
    b"\x89HDF": "HDF5",
    b"<": "a web page, so the download went wrong",
    b"version https://git-lfs": "a Git LFS pointer, so the download is not complete",
}


@dataclass
class Contents:
    """What a file holds, as data: nothing has been built yet.

    Attributes:
        format: the format, for people.
        networks: what was read, by name: a `NetworkState` for a network of ours, else a `NetworkRecord`.
        meta: what else the file says.
    """

    format: str
    networks: dict[str, AnyNetwork]
    meta: dict[str, Any]


def _read_bytes(source: str | os.PathLike[str] | IO[bytes]) -> bytearray:
    if isinstance(source, (str, os.PathLike)):
        return read_file(source)
    data = source.read()
    if not isinstance(data, bytes):
        raise TypeError(f"the file must be open for reading bytes, it gave {type(data).__name__}")
    return bytearray(data)


def read_contents(source: str | os.PathLike[str] | IO[bytes]) -> Contents:
    """Read a file without building networks.

    Args:
        source: path, or a file open for reading bytes.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, a pipe or a device.
        CheckpointError: damaged or of an unknown format.
        UntrustedCheckpointError: it asks for a name that no checkpoint needs.
    """
    data = _read_bytes(source)
    with naming(source):
        return _contents_of(data)


def _contents_of(data: bytearray) -> Contents:
    budget = Budget(len(data))
    if safetensors.looks_like(data):
        return Contents("sc-layers safetensors", *ours.read_safetensors(data, budget))
    if torch_files.is_torch_file(data):
        return _contents_of_torch(torch_files.load(data, budget))
    if data.startswith(_PICKLE_START):
        budget.charge(len(data))
        machine = Machine(names(budget, torch_files.read_storage), budget)
        return _contents_of_pickle(settle(machine.run(io.BytesIO(data)), budget), budget)
    for start, what in _OTHER_FORMATS.items():
        if data.startswith(start):
            raise CheckpointError(f"this is no checkpoint but {what}")
    raise CheckpointError(f"unknown format of checkpoint: the file starts with {bytes(data[:8])!r}")


def _contents_of_torch(content: Any) -> Contents:
    if isinstance(content, dict) and ours.FORMAT_KEY in content:
        kind = "a training's checkpoint" if ours.TRAINING in content else "sc-layers .pt"
        return Contents(kind, *ours.read_pt(content))
    if rosinality.is_rosinality(content):
        return Contents("rosinality stylegan2-pytorch", *rosinality.networks_of(content))
    raise CheckpointError("this .pt file is neither from sc_layers nor from rosinality's stylegan2-pytorch")


def _contents_of_pickle(content: Any, budget: Budget) -> Contents:
    if ours.is_pkl(content):
        return Contents("sc-layers .pkl", *ours.read_pkl(content))
    if nvlabs.is_persistence(content):
        return Contents("stylegan2-ada-pytorch or stylegan3", *nvlabs.networks_of(content, budget))
    if tensorflow.is_tensorflow(content):
        return Contents("TensorFlow networks", *tensorflow.networks_of(content, budget))
    raise CheckpointError(f"the pickle holds a {type(content).__name__} that is no known set of networks")


def load_network(
    source: str | os.PathLike[str] | IO[bytes],
    *,
    classes: Classes | None = None,
    impl: str = "auto",
) -> dict[str, Any]:
    """Load networks from a file; nothing in the file is ever run.

    Formats: our `.safetensors`, `.pt` and `.pkl`; the authors' TensorFlow pickles, which become our networks; pickles
    of stylegan2-ada-pytorch and stylegan3, StyleGAN2's TensorFlow pickles and rosinality's checkpoints.

    Args:
        source: path, or a file open for reading bytes.
        classes: the module or modules of the user's own program whose classes rebuild networks of other programs.
            Without it such a network comes as a `NetworkRecord`: its arguments and its state dict. These classes
            are the only code that runs, and they are the caller's.
        impl: "auto", "fused" or "reference", for the constriction layers of our generators.

    Returns:
        The networks that the file holds under `"G"`, `"D"`, `"G_ema"`, `"Q"`, `"Q_ema"`, `"P"`, in evaluation mode
        and without gradients, and `"meta"`. What the file lacks is absent.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, a pipe or a device.
        CheckpointError: damaged, of an unknown format, or not fitting the networks.
        UntrustedCheckpointError: it asks for a name that no checkpoint needs.
    """
    contents = read_contents(source)
    loaded: dict[str, Any] = {}
    with naming(source):
        for name, network in contents.networks.items():
            if isinstance(network, NetworkState):
                loaded[name] = network.build(impl)
            else:
                loaded[name] = network if classes is None else rebuild(network, classes)
    return {**loaded, "meta": contents.meta}


def rebuild_network(kind: str, config: dict[str, Any], state: dict[str, Tensor]) -> nn.Module:
    """Make a network of ours; our `.pkl` files call this when Python's own `pickle` opens them.

    Args:
        kind: name of the class.
        config: the configuration, as `to_dict` writes it.
        state: the state dict.

    Raises:
        CheckpointError: an unknown class, an invalid configuration, or tensors that do not fit it.
    """
    return NetworkState(kind, config, state).build()
