"""What a training leaves on disk: network snapshots, the state to go on from, statistics."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import CheckpointError, load_network, save_network
from ..checkpoints.networks import NetworkRecord
from ..checkpoints.pickles.torch_files import read_torch_file
from ..checkpoints.snapshots import snapshot_name
from ..files import append_line, write_file
from .config import TrainingConfig
from .optimizer import are_finite
from .step import TrainingState

STATE_FILE = "training-state.pt"
STATS_FILE = "stats.jsonl"
CONFIG_FILE = "training_options.json"
# What the state to go on from holds.
_STORED = (
    "snapshot", "images_seen", "updates", "skipped_updates", "g_optimizer", "d_optimizer", "rng", "rng_cuda"
)  # fmt: skip


def create_run_dir(outdir: str | Path, description: str) -> Path:
    """Make the folder `outdir/NNNNN-description`, NNNNN one above the highest there."""
    outdir = Path(outdir)
    outdir.mkdir(parents=True, exist_ok=True)
    while True:
        taken = _numbers(outdir)
        number = outdir / f"{max(taken, default=-1) + 1:05d}"
        try:
            number.mkdir()  # of several processes one gets it at a time
        except FileExistsError:
            continue
        if _numbers(outdir).count(int(number.name)) == 1:
            return number.rename(outdir / f"{number.name}-{description}")
        number.rmdir()  # another process had it and has renamed it


def _numbers(outdir: Path) -> list[int]:
    return [int(match[1]) for path in outdir.iterdir() if (match := re.match(r"(\d{5})(?:-|$)", path.name))]


class DivergedError(RuntimeError):
    """A training whose numbers are not finite any more; what was written before it diverged is as it was."""


def _check_finite(state: TrainingState) -> None:
    for name in ("G", "D", "Q", "G_ema", "Q_ema"):
        network = getattr(state, name)
        if network is not None and not are_finite(network.parameters()):
            raise DivergedError(f"after {state.images_seen} images {name} has weights that are not finite: not written")


def append_stats(run_dir: Path, stats: dict[str, Any]) -> None:
    """Add one line of JSON with `stats` to the statistics in the folder `run_dir`."""
    append_line(run_dir / STATS_FILE, json.dumps(stats))


def save_snapshot(run_dir: Path, state: TrainingState, meta: dict[str, Any]) -> Path:
    """Write the networks under the name that `snapshot_name` gives them, then the state to go on from.

    Only the newest snapshot has a state to go on from: it is twice as large as the networks.

    Args:
        run_dir: folder of the run.
        state: the training.
        meta: what else to keep beside the networks, such as the data set; must fit into JSON.

    Returns:
        Path of the network snapshot.

    Raises:
        DivergedError: a parameter is not finite; nothing is written.
    """
    _check_finite(state)
    path = run_dir / snapshot_name(state.images_seen)
    meta = meta | {"images_seen": state.images_seen, "training": state.config.to_dict()}
    save_network(path, G=state.G, D=state.D, G_ema=state.G_ema, Q=state.Q, Q_ema=state.Q_ema, meta=meta)
    content = {
        "snapshot": path.name,
        "images_seen": state.images_seen,
        "updates": state.updates,
        "skipped_updates": state.skipped_updates,
        "g_optimizer": state.g_optimizer.state_dict(),
        "d_optimizer": state.d_optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    buffer = io.BytesIO()  # PyTorch's writer ends the process where it meets a full disk
    torch.save(content, buffer)
    write_file(run_dir / STATE_FILE, buffer.getbuffer())
    return path


def resume_training(path: Path, config: TrainingConfig, device: torch.device) -> tuple[TrainingState, list[str]]:
    """Go on from a network file, with the optimisers' state where it lies beside it.

    Args:
        path: file with G, D, and the recogniser if the model has one.
        config: settings of the training to come.
        device: where to train.

    Returns:
        The training, and messages about what the file did not hold.

    Raises:
        ValueError: the file lacks the generator or the discriminator.
        CheckpointError: the file, or the state beside it, is damaged.
    """
    networks = load_network(path)
    _check_resumable(path, networks, config)

    def trainable(name: str) -> Any:
        return networks[name].to(device).train().requires_grad_(True)

    recognizer = trainable("Q") if config.model != "gan" else None
    state = TrainingState.create(config, trainable("G"), trainable("D"), recognizer)
    state.images_seen = int(networks["meta"].get("images_seen", 0))
    messages = []
    if "G_ema" in networks:
        state.G_ema.load_state_dict(networks["G_ema"].state_dict())
    else:
        messages.append(f"{path.name} holds no averaged generator: the average starts from G")
    if state.Q_ema is not None and "Q_ema" in networks:
        state.Q_ema.load_state_dict(networks["Q_ema"].state_dict())
    if not _restore(state, path):
        messages.append(f"no {STATE_FILE} of {path.name} beside it: the optimisers start afresh")
    return state, messages


def _check_resumable(path: Path, networks: Mapping[str, Any], config: TrainingConfig) -> None:
    missing = [name for name in ("G", "D") if name not in networks]
    if missing:
        raise ValueError(f"cannot resume from {path}: it holds no {' and no '.join(missing)}")
    if any(isinstance(network, NetworkRecord) for network in networks.values()):
        raise ValueError(f"cannot resume from {path}: it holds networks of another program")
    if "Q" not in networks and config.model != "gan":
        raise ValueError(f"cannot resume model {config.model!r} from {path}: it holds no recogniser Q")


def _restore(state: TrainingState, path: Path) -> bool:
    """Take up counters, optimisers and random numbers as they were when `path` was written, if they lie beside it."""
    state_path = path.with_name(STATE_FILE)
    if not state_path.is_file():
        return False
    stored = read_torch_file(state_path)
    missing = [name for name in _STORED if not isinstance(stored, dict) or name not in stored]
    if missing:
        raise CheckpointError(f"{state_path} is no state of a training: it lacks {', '.join(missing)}")
    # Several snapshots of one thousand of images have one name.
    if stored["snapshot"] != path.name or stored["images_seen"] != state.images_seen:
        return False
    state.updates = stored["updates"]
    state.skipped_updates = stored["skipped_updates"]
    state.g_optimizer.load_state_dict(stored["g_optimizer"])
    state.d_optimizer.load_state_dict(stored["d_optimizer"])
    torch.set_rng_state(stored["rng"])
    if stored["rng_cuda"] and torch.cuda.device_count() == len(stored["rng_cuda"]):
        torch.cuda.set_rng_state_all(stored["rng_cuda"])
    return True
