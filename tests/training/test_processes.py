"""Several processes that share a training, by Gloo on the CPU."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sc_layers.data import open_dataset
from sc_layers.training import resume_training, train
from sc_layers.training.processes import Processes, ProcessLost, launch
from sc_layers.training.snapshots import save_checkpoint
from tests.cli.running import TINY_TRAINING
from tests.training.tiny import TINY, tiny_state

CPU = torch.device("cpu")
CONFIG = TINY.replace(batch=12, batch_per_pass=2, total_kimg=0.036)  # three steps, R1 in two of them

_SHARED = """
import os, signal, sys, time
from pathlib import Path
from sc_layers.data import open_dataset
from sc_layers.training import train
from sc_layers.training.processes import Processes, ProcessLost
from tests.training.test_processes import CONFIG
from tests.training.tiny import tiny_state

with Processes.joined(cuda=False) as processes:
    state = tiny_state(CONFIG, processes)
    dataset = open_dataset("shapes3d", 32)
    images_at = dataset.images_at

    def killed(indices):
        if processes.rank == 1 and state.images_seen == 24:
            os.kill(os.getpid(), signal.SIGKILL)
        return images_at(indices)

    def damaged(indices):
        if processes.rank == 1 and state.images_seen == 24:
            raise ValueError("a damaged image")
        return images_at(indices)

    dataset.images_at = {"killed": killed, "damaged": damaged}.get(sys.argv[2], images_at)
    try:
        train(state, dataset, Path(sys.argv[1]), {}, progress=False)
    except ProcessLost:
        time.sleep(20)  # until it is ended: the process that failed tells why
        sys.exit(1)
"""


def _run_shared(folder: Path, count: int, how: str = "whole") -> int:
    folder.mkdir()
    return launch(["-c", _SHARED, str(folder), how], count)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    train(tiny_state(CONFIG), open_dataset("shapes3d", 32), folder, {}, progress=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_equal_one(tmp_path: Path, alone: Path, count: int) -> None:
    assert _run_shared(tmp_path / "shared", count) == 0
    ours, expected = (resume_training(folder, CPU, {"total_kimg": 1}).state for folder in (tmp_path / "shared", alone))
    assert ours.images_seen == expected.images_seen == 36
    for name in ("G", "D", "Q", "G_ema"):
        for key, value in getattr(expected, name).state_dict().items():
            torch.testing.assert_close(getattr(ours, name).state_dict()[key], value, rtol=0, atol=1e-6, msg=key)
    files = [sorted(path.name for path in folder.iterdir()) for folder in (tmp_path / "shared", alone)]
    assert files[0] == files[1]


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_leaves_a_checkpoint(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert _run_shared(tmp_path / "shared", 2, "damaged") == 1
    assert capfd.readouterr().err.count("ValueError: a damaged image") == 1
    assert resume_training(tmp_path / "shared", CPU).state.images_seen == 24


@pytest.mark.slow
def test_a_signal_to_the_command_leaves_a_checkpoint(tmp_path: Path) -> None:
    arguments = [*TINY_TRAINING, "--kimg", "100", "--outdir", str(tmp_path), "--gpus", "2", "--device", "cpu"]
    with subprocess.Popen(
        [sys.executable, "-m", "sc_layers", *arguments], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        seen = ""
        while "img/s" not in seen and process.poll() is None:
            seen += process.stderr.read(1)
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM, seen + rest
    (run_dir,) = tmp_path.iterdir()
    assert f"to go on: sc-layers train --resume {run_dir}" in rest
    assert "Traceback" not in rest
    resume_training(run_dir, CPU)


def test_passes_that_processes_cannot_share_are_refused() -> None:
    with pytest.raises(ValueError, match="in 2 passes of 4 images, which 3 processes cannot share"):
        tiny_state(TINY, Processes(0, 3))


def test_a_run_goes_on_with_other_processes_in_passes_that_they_can_share(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, tiny_state(TINY.replace(batch=12, batch_per_pass=12)), {}, keep=1)
    resumed = resume_training(tmp_path, CPU, processes=Processes(0, 3))
    assert resumed.messages == ["batch_per_pass 12 -> 4"]
    assert resumed.state.passes == range(1)


def test_each_process_has_its_passes() -> None:
    assert [tiny_state(CONFIG, Processes(rank, 3)).passes for rank in range(3)] == [range(2), range(2, 4), range(4, 6)]


@pytest.mark.slow
def test_launching_leaves_the_signal_handlers_of_the_caller() -> None:
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    assert launch(["-c", "pass"], 2) == 0
    assert {number: signal.getsignal(number) for number in signal.valid_signals()} == before


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(ProcessLost, match="process 1 of 2 was ended by SIGKILL, and the others with it"):
        _run_shared(tmp_path / "shared", 2, "killed")


_THREADS = """
import os, sys, time
from sc_layers.training.processes import Processes
from tests.training.test_processes import CONFIG
from tests.training.tiny import tiny_state

def threads():
    return set(os.listdir("/proc/self/task"))

before = threads()
with Processes.joined(cuda=False) as processes:
    state = tiny_state(CONFIG, processes)
    processes.average_gradients(list(state.G.parameters()))
    while_joined = threads() - before
ended_by = time.monotonic() + 30
while (left := while_joined & threads()) and time.monotonic() < ended_by:
    time.sleep(0.01)  # Linux shows a thread for a moment after it was joined
sys.exit(len(left) if while_joined else 99)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counting threads needs Linux")
def test_no_thread_of_an_exchange_outlives_it() -> None:
    assert launch(["-c", _THREADS], 2) == 0
