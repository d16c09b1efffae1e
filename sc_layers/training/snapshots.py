"""What a training leaves on disk: network snapshots, and checkpoints to go on from."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints import CheckpointError, load_network, save_network
from ..checkpoints.errors import naming
from ..checkpoints.networks import NetworkRecord
from ..checkpoints.opening import CODE_NAMES, code_names
from ..checkpoints.ours import TRAINING, read_pt
from ..checkpoints.pickles.torch_files import read_torch_file
from ..checkpoints.read import read_contents
from ..checkpoints.snapshots import find_snapshot, kimg_label, kimg_of, snapshot_name
from ..checkpoints.state import NETWORKS, NetworkState
from ..checkpoints.write import pt_content
from ..files import write_file
from ..messages import shown
from .config import TrainingConfig
from .optimizer import finite
from .processes import Processes
from .step import TrainingState

STATE_PREFIX = "training-state-"
_FIXED = ("model", "latents")  # what networks were made for
_COUNTERS = ("images_seen", "updates", "skipped_updates")
_STORED = (*_COUNTERS, "losses", "g_optimizer", "d_optimizer")


class DivergedError(RuntimeError):
    """A training whose numbers are not finite any more; what was written before it diverged is as it was."""


def _check_finite(state: TrainingState) -> None:
    for name in NETWORKS:
        network = getattr(state, name)
        if network is not None and not finite(network.parameters()):
            raise DivergedError(f"after {state.images_seen} images {name} has weights that are not finite: not written")


def save_snapshot(run_dir: Path, state: TrainingState, meta: dict[str, Any]) -> Path:
    """Write the networks under the name that `snapshot_name` gives them.

    Args:
        run_dir: folder of the run.
        state: the training.
        meta: what else to keep beside the networks, such as the data set; must fit into JSON.

    Returns:
        Path of the network snapshot.

    Raises:
        DivergedError: a parameter is not finite; nothing is written.
        WriteError: the disk is full, or the folder can't be written.
    """
    _check_finite(state)
    path = run_dir / snapshot_name(state.images_seen)
    meta = meta | {"images_seen": state.images_seen, "training": state.config.to_dict()}
    save_network(path, G=state.G, D=state.D, G_ema=state.G_ema, Q=state.Q, Q_ema=state.Q_ema, P=state.P, meta=meta)
    return path


def states_in(run_dir: Path) -> list[Path]:
    """The checkpoints in the folder `run_dir`, oldest first; an empty list where there are none."""
    return sorted(run_dir.glob(f"{STATE_PREFIX}*.pt"), key=kimg_of)


def save_checkpoint(run_dir: Path, state: TrainingState, meta: dict[str, Any], keep: int) -> Path:
    """Write all that a training needs to go on as if it had not ended, into one file, and remove old ones.

    Args:
        run_dir: folder of the run.
        state: the training.
        meta: as for `save_snapshot`.
        keep: so many of the newest checkpoints stay.

    Returns:
        Path of the checkpoint.

    Raises:
        DivergedError: a parameter is not finite; nothing is written.
        WriteError: the disk is full, or the folder can't be written; the checkpoints before it are there still.
    """
    _check_finite(state)
    networks = {
        name: NetworkState.of(name, getattr(state, name)) for name in NETWORKS if getattr(state, name) is not None
    }
    meta = meta | {"images_seen": state.images_seen, "training": state.config.to_dict()}
    training = {
        **{name: int(getattr(state, name)) for name in _COUNTERS},
        "losses": {name: torch.stack(values).cpu() for name, values in state.losses.items()},
        "g_optimizer": state.g_optimizer.state_dict(),
        "d_optimizer": state.d_optimizer.state_dict(),
        "scalers": [state.g_scaler.state_dict(), state.d_scaler.state_dict()],
        "augmentation": state.augmentation.state_dict(),
    }
    buffer = io.BytesIO()  # PyTorch's writer ends the process where it meets a full disk
    torch.save({**pt_content(networks, meta), TRAINING: training}, buffer)
    path = run_dir / f"{STATE_PREFIX}{kimg_label(state.images_seen)}.pt"
    write_file(path, buffer.getbuffer())
    for old in states_in(run_dir)[:-keep]:
        old.unlink()
    return path


@dataclass
class Resumed:
    """A training to go on with.

    Attributes:
        state: the training.
        meta: what was kept beside its networks, such as the data set.
        messages: what a user should know: settings that changed, what was not found.
    """

    state: TrainingState
    meta: dict[str, Any]
    messages: list[str] = field(default_factory=list)


def resume_training(
    path: Path,
    device: torch.device,
    changes: Mapping[str, Any] | None = None,
    default: TrainingConfig | None = None,
    processes: Processes | None = None,
) -> Resumed:
    """Go on from the newest whole checkpoint of a run, or from a network file.

    Args:
        path: folder of a run, or a network file with G, D, and the recogniser if the model has one. Beside a snapshot
            of a run, the checkpoint of the same moment is taken.
        device: where to train.
        changes: settings to change, by name; each that differs is told.
        default: settings for networks whose file holds none.
        processes: those that share the training; None for this one alone.

    Raises:
        FileNotFoundError: no such file or folder, or one without networks.
        ValueError: the file lacks a network, holds no settings while there is no default, or a change is asked for that
            these networks can't take.
        CheckpointError: the file is damaged, or weights in it are not finite.
    """
    messages: list[str] = []
    candidates = _candidates(path)
    for candidate in candidates:
        try:
            found = _read_checkpoint(candidate)
        except CheckpointError as error:
            messages.append(f"{error}: not taken{', the one before it is' if candidate != candidates[-1] else ''}")
            continue
        if path.is_dir() or snapshot_name(found.meta["images_seen"]) == path.name:
            found.meta |= _names_given(path, messages)
            return found.resume(device, changes or {}, messages, processes or Processes())
    source = find_snapshot(path)
    loaded = load_network(source)
    found = _Found(source, {name: loaded[name] for name in NETWORKS if name in loaded}, loaded["meta"])
    if "training" not in found.meta and default is not None:
        found.meta["training"] = default.to_dict()
    messages.append(f"no checkpoint of {source.name} beside it: the optimisers start afresh")
    return found.resume(device, changes or {}, messages, processes or Processes())


def _names_given(path: Path, messages: list[str]) -> dict[str, Any]:
    """The part of meta with the names that codes were given since: they stand in the snapshot, not the checkpoint."""
    try:
        names = code_names(read_contents(find_snapshot(path)).meta)
    except FileNotFoundError:
        return {}
    except CheckpointError as error:
        messages.append(f"{error}: names of codes are not taken from it")
        return {}
    return {CODE_NAMES: {str(code): name for code, name in names.items()}} if names else {}


def _candidates(path: Path) -> list[Path]:
    """Checkpoints, the newest first, from which to go on."""
    if path.is_dir():
        return states_in(path)[::-1]
    beside = path.with_name(f"{STATE_PREFIX}{path.stem.rpartition('-')[2]}.pt")
    return [beside] if beside.is_file() else []


def _read_checkpoint(path: Path) -> _Found:
    content = read_torch_file(path)
    with naming(path):
        training = content.get(TRAINING) if isinstance(content, dict) else None
        training = training if isinstance(training, dict) else {}
        missing = [name for name in _STORED if name not in training]
        if missing:
            raise CheckpointError(f"this is no checkpoint of a training: it lacks {', '.join(missing)}")
        states, meta = read_pt(content)
        networks = {name: state.build() for name, state in states.items() if isinstance(state, NetworkState)}
        if not all(type(training[name]) is int for name in _COUNTERS):
            raise CheckpointError("a counter of the training is no integer")
        if meta.get("images_seen") != training["images_seen"]:
            raise CheckpointError("its networks and its state are of different moments")
        return _Found(path, networks, meta, training)


@dataclass
class _Found:
    """What a file holds of a training; `training` is all but the networks, where it holds that."""

    path: Path
    networks: dict[str, Any]
    meta: dict[str, Any]
    training: dict[str, Any] | None = None

    def resume(
        self, device: torch.device, changes: Mapping[str, Any], messages: list[str], processes: Processes
    ) -> Resumed:
        config = self._config(changes, messages, processes)
        self._check_networks(config)
        with naming(self.path):
            state = self._state(config, device, messages, processes)
            if self.training is not None:
                _restore(state, self.training)
                if (state.P is None) == ("P" not in self.networks):
                    state.g_optimizer.load_state_dict(self.training["g_optimizer"])
                else:
                    messages.append("the generator's optimiser starts afresh: other weights learn")
                if self.meta["training"].get("freeze_d", 0) == config.freeze_d:
                    state.d_optimizer.load_state_dict(self.training["d_optimizer"])
                else:
                    messages.append("the discriminator's optimiser starts afresh: other weights learn")
        meta = {name: value for name, value in self.meta.items() if name not in ("training", "images_seen")}
        return Resumed(state, meta, messages)

    def _config(self, changes: Mapping[str, Any], messages: list[str], processes: Processes) -> TrainingConfig:
        stored = self.meta.get("training")
        if not isinstance(stored, dict):
            raise ValueError(f"{self.path} holds no settings of a training")
        with naming(self.path):
            before = TrainingConfig.from_dict(stored)
        after = before.shared(changes, processes.count)
        new_values = after.to_dict()
        for name, old in before.to_dict().items():
            new = new_values[name]
            if new != old and name in _FIXED:
                raise ValueError(f"{name} cannot change from {old} to {new}: {self.path} was trained with the former")
            if new != old:
                messages.append(f"{name} {old} -> {new}")
        return after

    def _check_networks(self, config: TrainingConfig) -> None:
        missing = [name for name in ("G", "D") if name not in self.networks]
        if missing:
            raise ValueError(f"cannot resume from {self.path}: it holds no {' and no '.join(missing)}")
        if any(isinstance(network, NetworkRecord) for network in self.networks.values()):
            raise ValueError(f"cannot resume from {self.path}: it holds networks of another program")
        if "Q" not in self.networks and config.model != "gan":
            raise ValueError(f"cannot resume model {config.model!r} from {self.path}: it holds no recogniser Q")
        for name, network in self.networks.items():
            if not finite(network.parameters()):
                raise CheckpointError(f"{self.path}: {name} has weights that are not finite, take an older one")

    def _state(
        self, config: TrainingConfig, device: torch.device, messages: list[str], processes: Processes
    ) -> TrainingState:
        def trainable(name: str) -> Any:
            return self.networks[name].to(device).train().requires_grad_(True)

        recognizer = trainable("Q") if config.model != "gan" else None
        of_pairs = trainable("P") if "P" in self.networks else None
        state = TrainingState.create(config, trainable("G"), trainable("D"), recognizer, processes, of_pairs)
        images_seen = self.meta.get("images_seen", 0)
        if type(images_seen) is not int or images_seen < 0:
            raise CheckpointError(f"images_seen is {shown(images_seen)}")
        state.images_seen = images_seen
        if "G_ema" in self.networks:
            _copy(self.networks["G_ema"], state.G_ema)
        else:
            messages.append(f"{self.path.name} holds no averaged generator: the average starts from G")
        if state.Q_ema is not None and "Q_ema" in self.networks:
            _copy(self.networks["Q_ema"], state.Q_ema)
        elif state.Q_ema is not None:
            messages.append(f"{self.path.name} holds no averaged recogniser: the average starts from Q")
        return state


def _copy(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(source.state_dict())


def _restore(state: TrainingState, training: Mapping[str, Any]) -> None:
    """Take up counters, losses and augmentation; random numbers follow from the counters."""
    state.images_seen, state.updates = training["images_seen"], training["updates"]
    state.skipped_updates.fill_(training["skipped_updates"])
    device = next(state.G.parameters()).device
    losses: dict[str, Tensor] = training["losses"]
    state.losses = {name: list(values.to(device).unbind()) for name, values in losses.items()}
    if "augmentation" in training:
        state.augmentation.load_state_dict(training["augmentation"])
    for scaler, stored in zip((state.g_scaler, state.d_scaler), training.get("scalers", ()), strict=False):
        if stored:  # empty where the losses were not scaled
            scaler.load_state_dict(stored)
