"""What a training leaves on disk, and going on from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sc_layers import CheckpointError
from sc_layers.checkpoints import load_network
from sc_layers.training import resume_training, step
from sc_layers.training.snapshots import DivergedError, save_checkpoint, save_snapshot, states_in
from tests.training.tiny import TINY, tiny_state

CPU = torch.device("cpu")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of which two snapshots and two checkpoints were written, after 16 and 32 images."""
    state = tiny_state()
    for images_seen in (16, 32):
        state.images_seen, state.updates = images_seen, images_seen // 8
        save_snapshot(tmp_path, state, {"data": "shapes3d"})
        save_checkpoint(tmp_path, state, {"data": "shapes3d"}, keep=2)
    return tmp_path


def test_a_training_comes_back_with_its_counters_and_settings(run_dir: Path) -> None:
    resumed = resume_training(run_dir, CPU)
    assert resumed.messages == []
    assert resumed.meta == {"data": "shapes3d"}
    assert (resumed.state.images_seen, resumed.state.updates) == (32, 4)
    assert resumed.state.config == TINY


def test_the_scale_of_the_losses_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "check_precision", lambda *_: None)
    state = tiny_state(TINY.replace(precision="fp16"))
    state.g_scaler.load_state_dict(state.g_scaler.state_dict() | {"scale": 32.0, "_growth_tracker": 7})
    save_checkpoint(tmp_path, state, {}, keep=1)
    resumed = resume_training(tmp_path, CPU).state
    assert resumed.g_scaler.state_dict() == state.g_scaler.state_dict()
    assert resumed.g_scaler.get_scale() == 32


def test_names_tell_every_moment(run_dir: Path) -> None:
    assert [path.name for path in states_in(run_dir)] == [
        "training-state-000000.016.pt",
        "training-state-000000.032.pt",
    ]
    assert (run_dir / "network-snapshot-000000.016.safetensors").is_file()


def test_so_many_checkpoints_stay(run_dir: Path) -> None:
    state = tiny_state()
    state.images_seen = 1000
    save_checkpoint(run_dir, state, {}, keep=1)
    assert [path.name for path in states_in(run_dir)] == ["training-state-000001.pt"]


def test_a_checkpoint_is_a_file_of_networks_too(run_dir: Path) -> None:
    networks = load_network(states_in(run_dir)[-1])
    assert set(networks) == {"G", "D", "G_ema", "Q", "meta"}
    assert networks["meta"]["images_seen"] == 32


def test_from_a_snapshot_the_checkpoint_of_its_moment_is_taken(run_dir: Path) -> None:
    resumed = resume_training(run_dir / "network-snapshot-000000.016.safetensors", CPU)
    assert resumed.messages == []
    assert (resumed.state.images_seen, resumed.state.updates) == (16, 2)


def test_resuming_without_a_checkpoint_says_so(run_dir: Path) -> None:
    for path in states_in(run_dir):
        path.unlink()
    name = "network-snapshot-000000.032.safetensors"
    for source in (run_dir, run_dir / name):
        resumed = resume_training(source, CPU)
        assert resumed.messages == [f"no checkpoint of {name} beside it: the optimisers start afresh"]
        assert (resumed.state.images_seen, resumed.state.updates) == (32, 0)


def test_settings_that_are_given_hold_and_are_told(run_dir: Path) -> None:
    changes = {"learning_rate": 0.5, "adam_beta2": 0.5, "adam_eps": 1e-3, "g_reg_interval": 7, "batch": 8}
    resumed = resume_training(run_dir, CPU, changes)
    assert resumed.messages == [
        "learning_rate 0.002 -> 0.5",
        "adam_beta2 0.99 -> 0.5",
        "adam_eps 1e-08 -> 0.001",
        "g_reg_interval 4 -> 7",
    ]
    fresh = tiny_state(TINY.replace(**changes))
    for name in ("g_optimizer", "d_optimizer"):
        ours, expected = (getattr(state, name).param_groups[0] for state in (resumed.state, fresh))
        assert {key: ours[key] for key in ("lr", "betas", "eps")} == {
            key: expected[key] for key in ("lr", "betas", "eps")
        }


def test_an_average_that_a_run_lacks_starts_from_what_it_has(run_dir: Path) -> None:
    resumed = resume_training(run_dir, CPU, {"average_recognizer": True})
    assert resumed.messages == [
        "average_recognizer False -> True",
        f"{states_in(run_dir)[-1].name} holds no averaged recogniser: the average starts from Q",
    ]
    Q, average = resumed.state.Q, resumed.state.Q_ema
    assert Q is not None
    assert average is not None
    assert all(torch.equal(a, b) for a, b in zip(Q.parameters(), average.parameters(), strict=True))


@pytest.mark.parametrize(("name", "value"), [("model", "gan"), ("latents", "normal")])
def test_what_networks_were_made_for_does_not_change(run_dir: Path, name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"{name} cannot change from .* to {value}"):
        resume_training(run_dir, CPU, {name: value})


def test_networks_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    state = tiny_state()
    next(state.D.parameters()).data.flatten()[0] = float("nan")
    with pytest.raises(DivergedError, match="after 0 images D has weights that are not finite"):
        save_snapshot(tmp_path, state, {})
    with pytest.raises(DivergedError, match="after 0 images D has weights that are not finite"):
        save_checkpoint(tmp_path, state, {}, keep=2)
    assert not list(tmp_path.iterdir())


def _changed(path: Path, change: Callable[[Any], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def test_networks_that_are_not_finite_are_not_taken(run_dir: Path) -> None:
    def spoil(content: Any) -> None:
        next(iter(content["networks"]["G"]["state"].values())).fill_(float("inf"))

    _changed(states_in(run_dir)[-1], spoil)
    with pytest.raises(CheckpointError, match=r"000000\.032\.pt: G has weights that are not finite, take an older one"):
        resume_training(run_dir, CPU)


def _shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "truncated": _shorten,
    "no state": lambda path: torch.save([1, 2], path),
    "no optimiser": lambda path: _changed(path, lambda content: content["training"].pop("g_optimizer")),
    "no networks": lambda path: _changed(path, lambda content: content.pop("networks")),
    "a counter that is none": lambda path: _changed(path, lambda content: content["training"].update(updates="many")),
    "of two moments": lambda path: _changed(path, lambda content: content["training"].update(images_seen=8)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(run_dir: Path, damage: str) -> None:
    newest = states_in(run_dir)[-1]
    DAMAGE[damage](newest)
    resumed = resume_training(run_dir, CPU)
    (message,) = resumed.messages
    assert message.startswith(str(newest))
    assert message.endswith(": not taken, the one before it is")
    assert (resumed.state.images_seen, resumed.state.updates) == (16, 2)


@pytest.mark.parametrize(
    "change",
    [
        lambda training: training["g_optimizer"]["param_groups"][0].pop("updates"),
        lambda training: training["g_optimizer"].update(param_groups=[]),
        lambda training: training.update(g_optimizer=[1]),
        lambda training: training["d_optimizer"]["state"].clear(),
        lambda training: training["d_optimizer"]["state"][0].update(exp_avg=torch.zeros(7)),
        lambda training: training.update(losses=[1]),
    ],
)
def test_a_state_that_does_not_fit_is_one_clear_error(run_dir: Path, change: Callable[[Any], object]) -> None:
    state = tiny_state()
    for optimizer in (state.g_optimizer, state.d_optimizer):
        optimizer.update()
    state.images_seen = 48
    path = save_checkpoint(run_dir, state, {}, keep=1)
    _changed(path, lambda content: change(content["training"]))
    with pytest.raises(CheckpointError, match=f"^{path}: "):
        resume_training(run_dir, CPU)


def test_the_state_of_a_stranger_is_read_by_the_machine_that_runs_nothing(run_dir: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit",)

    (old, newest) = states_in(run_dir)
    old.unlink()
    torch.save({"training": Hostile()}, newest)
    messages = resume_training(run_dir, CPU).messages
    assert "the checkpoint asks for __builtin__.exec" in messages[0]
