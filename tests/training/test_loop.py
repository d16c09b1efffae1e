"""The loop: what it leaves on disk, and that a resumed run goes on as if it had not been interrupted."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sc_layers import load_network
from sc_layers.data import Dataset, open_dataset
from sc_layers.training import Interrupted, TrainingState, create_run_dir, resume_training, train
from sc_layers.training.run_dir import locked
from sc_layers.training.snapshots import DivergedError
from tests.data.files import random_pixels, write_pngs
from tests.training.tiny import TINY, tiny_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    return open_dataset("shapes3d", 32)


def _train(folder: Path, dataset, state: TrainingState) -> Path:
    return train(state, dataset, create_run_dir(folder, "tiny"), {"data": "shapes3d"}, progress=False)


def test_run_leaves_snapshots_pictures_and_statistics(tmp_path: Path, dataset) -> None:
    seen = []
    state = tiny_state()
    run_dir = create_run_dir(tmp_path, "tiny")
    last = train(state, dataset, run_dir, {"data": "shapes3d"}, [lambda s, d: seen.append(s.images_seen)], False)
    assert seen == [32, 64]
    assert last == run_dir / "network-snapshot-000000.064.safetensors"
    stats = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert [line["kimg"] for line in stats] == [0.016, 0.032, 0.048, 0.064]
    assert {"loss/G", "loss/D", "loss/codes", "loss/R1", "images_per_second"} <= set(stats[0])
    assert Image.open(run_dir / "reals.png").size == (8 * 32, 6 * 32)
    assert Image.open(run_dir / "fakes000000.064.png").size == (8 * 32, 6 * 32)
    assert Image.open(run_dir / "masks000000.064.png").size == (3 * 32, 6 * 32)
    options = json.loads((run_dir / "training_options.json").read_text())
    assert options["training"]["batch"] == 8
    assert options["networks"]["generator"] == state.G.config.to_dict()
    assert (run_dir / "log.txt").read_text().count("loss/G") == 4
    networks = load_network(last)
    assert set(networks) == {"G", "D", "G_ema", "Q", "meta"}
    assert networks["meta"]["data"] == "shapes3d"
    assert not list(run_dir.glob(".*.part"))


def _assert_same(states: TrainingState, expected: TrainingState) -> None:
    for name in ("G", "D", "Q", "G_ema", "Q_ema"):
        found, wanted = getattr(states, name), getattr(expected, name)
        assert (found is None) == (wanted is None), name
        for key, value in {} if wanted is None else wanted.state_dict().items():
            assert torch.equal(found.state_dict()[key], value), f"{name}.{key}"


def _losses(run_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "loss" in name or name == "kimg"} for line in lines]


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, dataset) -> None:
    config = TINY.replace(average_recognizer=True)
    whole = tiny_state(config)
    _train(tmp_path / "whole", dataset, whole)
    half = tiny_state(config.replace(total_kimg=0.032))
    snapshot = _train(tmp_path / "half", dataset, half)
    torch.manual_seed(99)
    resumed = resume_training(snapshot, CPU, {"total_kimg": TINY.total_kimg})
    assert resumed.messages == ["total_kimg 0.032 -> 0.064"]
    assert (resumed.state.images_seen, resumed.state.updates) == (32, 4)
    _train(tmp_path / "half", dataset, resumed.state)
    _assert_same(resumed.state, whole)


# Goes on in a folder, or begins there, and is killed after so many seconds of the training, if it lasts that long.
_KILLED = """
import os, signal, sys, threading
from pathlib import Path
import torch
from sc_layers.data import open_dataset
from sc_layers.training import resume_training, train
from tests.training.tiny import TINY, tiny_state
torch.set_num_threads(1)
folder = Path(sys.argv[1])
config = TINY.replace(total_kimg=0.16, checkpoint_minutes=0.001)
has_begun = any(folder.glob("*.pt"))
state = resume_training(folder, torch.device("cpu")).state if has_begun else tiny_state(config)
dataset = open_dataset("shapes3d", 32)
for seconds in sys.argv[2:]:
    threading.Timer(float(seconds), os.kill, (os.getpid(), signal.SIGKILL)).start()
train(state, dataset, folder, {"data": "shapes3d"}, progress=False)
"""


@pytest.mark.slow
def test_a_training_killed_at_any_moment_ends_as_if_it_had_not_been(tmp_path: Path, dataset) -> None:
    def run(folder: Path, *seconds: str) -> int:
        folder.mkdir(exist_ok=True)
        command = [sys.executable, "-c", _KILLED, str(folder), *seconds]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode in (0, -signal.SIGKILL), result.stderr
        return result.returncode

    assert run(tmp_path / "whole") == 0
    draws = random.Random(0)
    killed = 0
    for _ in range(10):
        killed += run(tmp_path / "killed", f"{draws.uniform(0.02, 0.6):.3f}") == -signal.SIGKILL
    assert killed >= 3
    if not list((tmp_path / "killed").glob("network-snapshot-000000.160*")):
        assert run(tmp_path / "killed") == 0
    ends = [resume_training(tmp_path / name, CPU, {"total_kimg": 1}).state for name in ("killed", "whole")]
    _assert_same(*ends)
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*.part"))


# As above, and killed in the middle of so many a write: of a file before it is moved into place, or of half a line.
_KILLED_WRITING = """
import itertools, os, signal, sys
writes = itertools.count()
def killing(function):
    def write(*arguments):
        if next(writes) == int(sys.argv[2]):
            if function is os.write:
                function(arguments[0], arguments[1][: len(arguments[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return write
if len(sys.argv) > 2:
    os.fsync, os.write = killing(os.fsync), killing(os.write)
"""


@pytest.mark.slow
def test_a_training_killed_in_the_middle_of_writes_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    script = _KILLED_WRITING + _KILLED.replace("for seconds in sys.argv[2:]:", "for seconds in ():")

    def run(folder: Path, *write: str) -> int:
        folder.mkdir(exist_ok=True)
        result = subprocess.run([sys.executable, "-c", script, str(folder), *write], capture_output=True, text=True)
        assert result.returncode in (0, -signal.SIGKILL), result.stderr
        return result.returncode

    assert run(tmp_path / "whole") == 0
    killed = [run(tmp_path / "killed", str(write)) for write in (3, 7, 12)]
    assert killed.count(-signal.SIGKILL) >= 2
    if not list((tmp_path / "killed").glob("network-snapshot-000000.160*")):
        assert run(tmp_path / "killed") == 0
    ends = [resume_training(tmp_path / name, CPU, {"total_kimg": 1}).state for name in ("killed", "whole")]
    _assert_same(*ends)
    assert _losses(tmp_path / "killed") == _losses(tmp_path / "whole")
    assert not list((tmp_path / "killed").glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_a_checkpoint(tmp_path: Path, dataset, number: signal.Signals) -> None:
    whole = tiny_state()
    _train(tmp_path / "whole", dataset, whole)
    state = tiny_state(TINY.replace(snapshot_kimg=1))

    class Signalling(type(dataset)):
        def images_at(self, indices: Any) -> Any:
            if state.images_seen == 16:
                os.kill(os.getpid(), number)
            return dataset.images_at(indices)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=f"ended by signal {number}"):
        train(state, Signalling(32), tmp_path, {}, progress=False, workers=0)
    assert signal.getsignal(number) == before
    resumed = resume_training(tmp_path, CPU).state
    assert resumed.images_seen == 16
    train(resumed, dataset, tmp_path, {}, progress=False)
    _assert_same(resumed, whole)


def test_a_signal_ends_what_follows_a_snapshot_at_once(tmp_path: Path, dataset) -> None:
    def wait(state: TrainingState, _: Path) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("it went on")

    with pytest.raises(Interrupted):
        train(tiny_state(), dataset, tmp_path, {}, [wait], progress=False)
    assert resume_training(tmp_path, CPU).state.images_seen == 32


def test_checkpoints_are_written_in_between(tmp_path: Path, dataset) -> None:
    state = tiny_state(TINY.replace(snapshot_kimg=1, checkpoint_minutes=1e-9))
    train(state, dataset, tmp_path, {}, progress=False, keep=3)
    names = sorted(path.name for path in tmp_path.glob("training-state*"))
    assert names == [f"training-state-000000.0{images}.pt" for images in (48, 56, 64)]


def test_finished_training_is_not_continued(tmp_path: Path, dataset) -> None:
    state = tiny_state()
    state.images_seen = 64
    with pytest.raises(ValueError, match="nothing to do: 64 images were seen"):
        _train(tmp_path, dataset, state)


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    """Pictures of which the last cannot be read."""
    paths = write_pngs(tmp_path / "pictures", random_pixels(40, size=32))
    paths[-1].write_bytes(paths[-1].read_bytes()[:500])
    return open_dataset(tmp_path / "pictures")


def test_a_damaged_picture_ends_a_long_run_soon_by_its_name(tmp_path: Path, damaged: Dataset) -> None:
    state = tiny_state(TINY.replace(total_kimg=1000))
    with pytest.raises(ValueError, match=r"039\.png cannot be read as an image") as error:
        _train(tmp_path, damaged, state)
    assert not multiprocessing.active_children(), f"still alive while {error.value!r} is held"
    (run_dir,) = (path for path in tmp_path.iterdir() if path.name != "pictures")
    assert resume_training(run_dir, CPU).state.images_seen == state.images_seen


def test_training_goes_on_without_damaged_pictures_on_request(tmp_path: Path, damaged: Dataset) -> None:
    state = tiny_state(TINY)
    run_dir = create_run_dir(tmp_path, "tiny")
    with pytest.warns(UserWarning, match=r"left out, 1 so far: .*039\.png cannot be read"):
        train(state, damaged, run_dir, {}, progress=False, workers=0, skip_bad=True)
    assert state.images_seen == 64


def test_a_training_that_has_diverged_stops_and_keeps_what_was_written(tmp_path: Path, dataset) -> None:
    state = tiny_state(TINY.replace(total_kimg=1, snapshot_kimg=0.16))
    run_dir = create_run_dir(tmp_path, "tiny")

    def spoil(state: TrainingState, _: Path) -> None:
        next(state.G.parameters()).data.fill_(float("nan"))

    message = "diverged: in 20 steps in a row, up to 320 images, gradients were not finite; go on from .*-000000.160.pt"
    with pytest.raises(DivergedError, match=message):
        train(state, dataset, run_dir, {}, [spoil], progress=False)
    resume_training(run_dir, CPU)


def test_a_training_of_which_many_updates_are_skipped_stops(tmp_path: Path, dataset) -> None:
    state = tiny_state(TINY.replace(total_kimg=1, tick_kimg=0.4, d_reg_interval=1000))
    update = state.g_optimizer.update
    calls = itertools.count()
    state.g_optimizer.update = lambda: update() if next(calls) % 2 else torch.ones(())  # every other one
    with pytest.raises(DivergedError, match="in the last 50 steps, up to 400 images, 25 updates were skipped"):
        train(state, dataset, tmp_path, {}, progress=False)


def test_one_training_at_a_time(tmp_path: Path, dataset) -> None:
    with locked(tmp_path), pytest.raises(RuntimeError, match="another process trains in"):
        train(tiny_state(), dataset, tmp_path, {}, progress=False)
