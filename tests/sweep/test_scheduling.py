"""Runs on Ray, and the time that they take."""

from __future__ import annotations

import dataclasses
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sc_layers.sweep import scheduling
from sc_layers.sweep.grid import Grid, Run
from sc_layers.sweep.results import FAILED, FINISHED, Result
from sc_layers.sweep.scheduling import Resources, duration, pending_runs
from sc_layers.training import Interrupted

RUNS = Grid(["mig"], {"kimg": 1}, {"a": {}}, seeds=[0, 1, 2]).runs()


def _result(run: Run, status: str = FINISHED) -> Result:
    return Result(run.setting, run.seed, run.train, run.measure, status, {"mig": 0.5}, seconds=60)


@pytest.mark.parametrize(
    ("resources", "gpus", "expected"),
    [
        (Resources(None, 8), 0, 8),
        (Resources(None, 8, threads=3), 0, 2),
        (Resources(None, 8, gpu_share=1), 2, 2),
        (Resources(None, 8, gpu_share=0.25), 1, 4),
        (Resources(None, 2, gpu_share=0.1), 1, 2),
    ],
)
def test_processors_and_gpus_decide_how_many_run_at_once(resources: Resources, gpus: int, expected: int) -> None:
    assert resources.at_once(gpus) == expected


def test_resources_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a run takes 4 threads, and there are 2"):
        Resources(None, 2, threads=4)
    with pytest.raises(ValueError, match=r"gpu_share must be from 0 to 1, got 1\.5"):
        Resources(None, 2, gpu_share=1.5)


def test_what_no_machine_of_the_cluster_has_is_refused() -> None:
    ray = SimpleNamespace(cluster_resources=lambda: {"CPU": 4.0})
    scheduling._check_room(ray, Resources(None, 4))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a run takes 0\.5 GPU, and Ray has 0"):
        scheduling._check_room(ray, Resources(None, 4, gpu_share=0.5))  # type: ignore[arg-type]


def test_finished_runs_are_not_pending_and_failed_ones_are(tmp_path: Path) -> None:
    for run, status in zip(RUNS, (FINISHED, FAILED), strict=False):
        (tmp_path / run.name).mkdir()
        _result(run, status).save(tmp_path / run.name)
    assert pending_runs(RUNS, tmp_path) == RUNS[1:]


class _FakeRay:
    """Ends tasks one after the other; the one named `lost` has lost its worker, at `interrupt` the user interrupts."""

    class exceptions:
        RayError = RuntimeError

    def __init__(self, lost: int | None = None, interrupt: int | None = None) -> None:
        self.lost, self.interrupt, self.cancelled = lost, interrupt, list[Any]()

    def wait(self, tasks: list[int], num_returns: int, timeout: float | None = None) -> tuple[list[int], list[int]]:
        if tasks[0] == self.interrupt and timeout is None:
            raise KeyboardInterrupt
        return tasks[:1], tasks[1:]

    def get(self, task: int) -> Result:
        if task == self.lost:
            raise RuntimeError("the worker died")
        return _result(RUNS[task])

    def cancel(self, task: int) -> None:
        self.cancelled.append(task)


def test_a_lost_worker_is_a_failed_row_and_the_others_go_on() -> None:
    lines: list[str] = []
    results = scheduling._collect(_FakeRay(lost=1), dict(enumerate(RUNS)), lines.append)  # type: ignore[arg-type]
    assert [result.status for result in results] == [FINISHED, FAILED, FINISHED]
    assert lines[0].startswith("[1/3] a-seed0: mig 0.5 (60 s; about ")
    assert lines[1].startswith("[2/3] a-seed1: failed: the worker died")
    assert all(line.endswith(" left)") for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_sweep_and_its_handler_is_as_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as interrupted, scheduling.interruptible():
        signal.raise_signal(number)
    assert interrupted.value.signal == number
    assert signal.getsignal(number) is before


def test_an_interruption_ends_the_runs_that_go_on() -> None:
    ray = _FakeRay(interrupt=1)
    with pytest.raises(KeyboardInterrupt):
        scheduling._collect(ray, dict(enumerate(RUNS)), lambda line: None)  # type: ignore[arg-type]
    assert ray.cancelled == [1, 2]


def test_without_ray_the_error_names_the_extra_and_the_pythons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'sc-layers\[sweep\]'.*packages for Python 3\.10"):
        scheduling.sweep(RUNS, tmp_path, Resources(None, 1), lambda line: None)


def test_a_sweep_that_is_finished_needs_no_ray(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for run in RUNS:
        (tmp_path / run.name).mkdir()
        _result(run).save(tmp_path / run.name)
    lines: list[str] = []
    assert scheduling.sweep(RUNS, tmp_path, Resources(None, 1), lines.append) == []
    assert lines == ["3 runs, 3 of them finished already"]


def test_the_time_of_all_runs_is_that_of_each_setting_times_its_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Grid(["mig"], {"kimg": 1}, {"a": {}, "b": {}}, seeds=[0, 1]).runs()
    monkeypatch.setattr(scheduling, "training_seconds", lambda run, *_: {"a": 10.0, "b": 30.0}[run.setting["method"]])
    monkeypatch.setattr(scheduling, "run_dirs", lambda folder: [folder])
    monkeypatch.setattr(scheduling, "measure", lambda *_: None)
    monkeypatch.setattr(scheduling.time, "monotonic", iter((0.0, 5.0)).__next__)
    found = scheduling.estimate(runs, Resources(None, 2), 0)
    assert found.training == {"a-seed0": 10.0, "b-seed0": 30.0}
    assert found.measuring == 5
    assert found.total == (2 * 10 + 2 * 30 + 4 * 5) / 2


def test_the_time_of_a_training_is_that_of_its_first_steps_for_all_its_images(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[list[str]] = []

    class Here:
        def call(self, words: list[str]) -> str:
            calls.append(words)
            return 'parameters: G 3\n{"total_kimg": 100, "batch": 8}'

    stats = [{"kimg": 0.064, "images_per_second": 32.0}, {"kimg": 0.128, "images_per_second": 64.0}]
    monkeypatch.setattr(scheduling, "run_dirs", lambda folder: [folder])
    monkeypatch.setattr(scheduling, "read_json_lines", lambda path: stats)
    seconds = scheduling.training_seconds(dataclasses.replace(RUNS[0]), Here(), tmp_path)  # type: ignore[arg-type]
    assert seconds == pytest.approx((2 + 1) * 100 / 0.128)
    assert calls[0][-1] == "--dry-run"
    assert calls[1][-2:] == ["--kimg", "0.128"]


def test_time_is_said_as_people_say_it() -> None:
    assert [duration(seconds) for seconds in (3.4, 119, 120, 7199, 7200)] == [
        "3 s",
        "119 s",
        "2 min",
        "120 min",
        "2.0 h",
    ]
