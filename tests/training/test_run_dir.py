"""The folder of a run."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from sc_layers.training.run_dir import STATS_FILE, append_stats, create_run_dir, cut_stats, locked, remove_if_empty


def test_run_dirs_are_numbered(tmp_path: Path) -> None:
    assert create_run_dir(tmp_path / "runs", "a").name == "00000-a"
    assert create_run_dir(tmp_path / "runs", "b").name == "00001-b"


def test_a_long_description_is_cut(tmp_path: Path) -> None:
    assert len(create_run_dir(tmp_path, "a" * 300).name) == 200


def test_processes_that_start_together_get_folders_of_their_own(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: create_run_dir(tmp_path, "a"), range(24)))
    assert sorted(folder.name for folder in folders) == [f"{number:05d}-a" for number in range(24)]


def _hold(folder: Path, ready: Connection) -> None:
    with locked(folder):
        ready.send(True)
        signal.pause()


def test_one_process_at_a_time_until_it_ends_in_whatever_way(tmp_path: Path) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv()
    with pytest.raises(RuntimeError, match="another process trains in"), locked(tmp_path):
        pass
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    (tmp_path / ".stats.jsonl.abc.part").touch()
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_its_owner_has_removed_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / ".lock"
    flock = fcntl.flock

    def late(file: Any, how: int) -> None:
        """The owner ends between our opening of its lock and our taking it, and another training begins."""
        flock(file, how)
        lock.unlink()
        lock.touch()

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(RuntimeError, match="another process trains in"), locked(tmp_path):
        pass
    assert lock.exists()


def test_statistics_are_json_whatever_the_numbers(tmp_path: Path) -> None:
    append_stats(tmp_path, {"kimg": 1.0, "loss/G": float("nan"), "loss/D": float("inf")})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    line = json.loads((tmp_path / STATS_FILE).read_text(), parse_constant=refuse)
    assert line == {"kimg": 1.0, "loss/G": None, "loss/D": None}


def test_statistics_are_cut_back_to_where_a_training_goes_on(tmp_path: Path) -> None:
    cut_stats(tmp_path, 0)
    for kimg in (0.016, 0.032, 0.048):
        append_stats(tmp_path, {"kimg": kimg})
    with (tmp_path / STATS_FILE).open("a") as file:
        file.write('{"kimg": 0.0')
    cut_stats(tmp_path, 32)
    assert [json.loads(line)["kimg"] for line in (tmp_path / STATS_FILE).read_text().splitlines()] == [0.016, 0.032]


def test_results_of_metrics_and_reading_errors_are_cut_back_too(tmp_path: Path) -> None:
    lines = {
        "codes.jsonl": [{"kimg": 0.016}, {"kimg": 0.048}],
        "metric-fid.jsonl": [
            {"metric": "fid", "snapshot_pkl": "network-snapshot-000000.016.safetensors"},
            {"metric": "fid", "snapshot_pkl": "network-snapshot-000000.048.safetensors"},
            {"metric": "fid", "snapshot_pkl": None},
        ],
        "select.jsonl": [{"kimg": 9.0}],
    }
    for name, entries in lines.items():
        (tmp_path / name).write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    cut_stats(tmp_path, 32)
    kept = {name: [json.loads(line) for line in (tmp_path / name).read_text().splitlines()] for name in lines}
    first, _, unnamed = lines["metric-fid.jsonl"]
    expected = {"codes.jsonl": [{"kimg": 0.016}], "metric-fid.jsonl": [first, unnamed]}
    assert kept == {**expected, "select.jsonl": lines["select.jsonl"]}


def test_an_empty_folder_goes_and_another_stays(tmp_path: Path) -> None:
    empty, full = tmp_path / "empty", tmp_path / "full"
    for folder in (empty, full):
        folder.mkdir()
    (full / "file").touch()
    for folder in (empty, full):
        remove_if_empty(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
