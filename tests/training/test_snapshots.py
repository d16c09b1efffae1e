"""What a run leaves on disk, and going on from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from sc_layers import CheckpointError, UntrustedCheckpointError
from sc_layers.training import create_run_dir, resume_training
from sc_layers.training.snapshots import STATE_FILE, DivergedError, save_snapshot
from tests.training.tiny import TINY, tiny_state

CPU = torch.device("cpu")


def test_run_dirs_are_numbered(tmp_path: Path) -> None:
    assert create_run_dir(tmp_path / "runs", "a").name == "00000-a"
    assert create_run_dir(tmp_path / "runs", "b").name == "00001-b"


def test_processes_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: create_run_dir(tmp_path, "a"), range(24)))
    assert sorted(folder.name for folder in folders) == [f"{number:05d}-a" for number in range(24)]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    state = tiny_state()
    state.images_seen, state.updates = 32, 4
    return save_snapshot(tmp_path, state, {})


def test_a_training_comes_back_with_its_counters(snapshot: Path) -> None:
    resumed, messages = resume_training(snapshot, TINY, CPU)
    assert messages == []
    assert (resumed.images_seen, resumed.updates) == (32, 4)


def test_resuming_without_optimizer_state_says_so(snapshot: Path) -> None:
    (snapshot.parent / STATE_FILE).unlink()
    _, messages = resume_training(snapshot, TINY, CPU)
    assert messages == [f"no {STATE_FILE} of {snapshot.name} beside it: the optimisers start afresh"]


def test_a_state_of_other_networks_with_the_same_name_is_not_taken(snapshot: Path) -> None:
    state = tiny_state()
    state.images_seen = 16  # of the same thousand
    folder = snapshot.parent / "other"
    folder.mkdir()
    other = save_snapshot(folder, state, {})
    assert other.name == snapshot.name
    (other.parent / STATE_FILE).replace(snapshot.parent / STATE_FILE)
    _, messages = resume_training(snapshot, TINY, CPU)
    assert messages == [f"no {STATE_FILE} of {snapshot.name} beside it: the optimisers start afresh"]


def test_settings_that_are_given_hold_after_resuming(snapshot: Path) -> None:
    config = TINY.replace(learning_rate=0.5, adam_beta2=0.5, adam_eps=1e-3, g_reg_interval=7)
    resumed, _ = resume_training(snapshot, config, CPU)
    fresh = tiny_state(config)
    for name in ("g_optimizer", "d_optimizer"):
        ours, expected = (getattr(state, name).param_groups[0] for state in (resumed, fresh))
        assert {key: ours[key] for key in ("lr", "betas", "base_eps")} == {
            key: expected[key] for key in ("lr", "betas", "base_eps")
        }


def test_networks_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    state = tiny_state()
    next(state.D.parameters()).data.flatten()[0] = float("nan")
    with pytest.raises(DivergedError, match="after 0 images D has weights that are not finite"):
        save_snapshot(tmp_path, state, {})
    assert not list(tmp_path.iterdir())


def test_the_state_of_a_stranger_is_read_by_the_machine_that_runs_nothing(snapshot: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return exec, ("raise SystemExit",)

    torch.save({"snapshot": snapshot.name, "g_optimizer": Hostile()}, snapshot.parent / STATE_FILE)
    with pytest.raises(UntrustedCheckpointError, match=r"training-state.pt: the checkpoint asks for __builtin__.exec"):
        resume_training(snapshot, TINY, CPU)


def test_a_damaged_state_is_named(snapshot: Path) -> None:
    (snapshot.parent / STATE_FILE).write_bytes(b"PK half a file")
    with pytest.raises(CheckpointError, match=r"training-state.pt: not a file of torch.save"):
        resume_training(snapshot, TINY, CPU)


@pytest.mark.parametrize("content", [[1, 2], {"snapshot": "network-snapshot-000000.safetensors"}])
def test_a_file_that_is_no_state_is_named(snapshot: Path, content: object) -> None:
    torch.save(content, snapshot.parent / STATE_FILE)
    with pytest.raises(CheckpointError, match=r"training-state\.pt is no state of a training: it lacks .*g_optimizer"):
        resume_training(snapshot, TINY, CPU)
