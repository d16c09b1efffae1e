"""One run of a sweep: finished, taken up again, failed, ended from outside."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import pytest

from sc_layers.sweep import running
from sc_layers.sweep.grid import Run
from sc_layers.sweep.results import FAILED, FINISHED, Result, load_result
from sc_layers.sweep.running import CommandError, Place, execute, is_done
from tests.sweep.samples import TINY

RUN = Run({"method": "PS-SC"}, 3, TINY, {"metrics": "tpl_small_0.3", "distance": "mse"})
PLACE = Place(".")


@pytest.mark.slow
def test_a_run_is_trained_and_measured_once_and_goes_on_when_it_shall_be_longer(tmp_path: Path) -> None:
    found = execute(RUN, tmp_path, PLACE)
    assert found.status == FINISHED, found.error
    assert list(found.scores) == ["tpl_small_0.3"]
    assert found.num_active is not None
    assert load_result(tmp_path) == found
    assert is_done(tmp_path, RUN)
    (run_dir,) = running.run_dirs(tmp_path)
    assert json.loads((run_dir / "training_options.json").read_text())["training"]["seed"] == 3

    longer = dataclasses.replace(RUN, train={**TINY, "kimg": 0.024})
    assert not is_done(tmp_path, longer)
    found = execute(longer, tmp_path, PLACE)
    assert found.status == FINISHED, found.error
    assert running.run_dirs(tmp_path) == [run_dir]
    assert found.network == f"{run_dir.name}/network-snapshot-000000.024.safetensors"
    lines = [json.loads(line)["kimg"] for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert lines == [0.016, 0.024]


@pytest.mark.slow
def test_a_run_that_is_trained_is_measured_anew_without_training(tmp_path: Path) -> None:
    execute(RUN, tmp_path, PLACE)
    (run_dir,) = running.run_dirs(tmp_path)
    before = (run_dir / "log.txt").read_bytes()
    other = dataclasses.replace(RUN, measure={"metrics": "ppl", "distance": "mse", "num-images": 4})
    assert not is_done(tmp_path, other)
    assert list(execute(other, tmp_path, PLACE).scores) == ["ppl"]
    assert (run_dir / "log.txt").read_bytes() == before


@pytest.mark.slow
def test_a_run_that_fails_says_why_and_keeps_its_output(tmp_path: Path) -> None:
    found = execute(dataclasses.replace(RUN, train={**TINY, "data": "nowhere"}), tmp_path, PLACE)
    assert found.status == FAILED
    assert "nowhere" in str(found.error)
    assert load_result(tmp_path) == found
    assert "Error: " in (tmp_path / "log.txt").read_text()


def test_what_goes_wrong_outside_a_command_is_a_failure_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(running, "_train", broken)
    assert execute(RUN, tmp_path, PLACE).error == "the disk is gone"


def test_a_failed_or_unfinished_run_is_not_done(tmp_path: Path) -> None:
    assert not is_done(tmp_path, RUN)
    for status, done in (("running", False), (FAILED, False), (FINISHED, True)):
        Result(RUN.setting, RUN.seed, RUN.train, RUN.measure, status).save(tmp_path)
        assert is_done(tmp_path, RUN) is done


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    Result(RUN.setting, RUN.seed, {**TINY, "batch": 16}, RUN.measure, FINISHED).save(tmp_path)
    with pytest.raises(ValueError, match="a run with batch 16, the grid has 8: take another --outdir"):
        is_done(tmp_path, RUN)


def test_a_command_that_fails_raises_its_own_message() -> None:
    with pytest.raises(CommandError, match=r"No such option.*--colour") as caught:
        PLACE.call(["inspect", "--colour", "red"])
    assert "Usage:" in caught.value.log


def test_a_command_ends_with_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[str]] = []

    def interrupt(process: subprocess.Popen[str]) -> None:
        started.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_outputs", interrupt)
    with pytest.raises(KeyboardInterrupt):
        PLACE.call(["doctor"])
    assert started[0].returncode not in (None, 0)
