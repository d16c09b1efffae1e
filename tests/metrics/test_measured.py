"""Finding the checkpoints of runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.metrics.measured import find_checkpoints


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs with two snapshots and one."""
    for name in ("run0/network-snapshot-000001", "run0/network-snapshot-000002", "run1/network-snapshot-000001"):
        path = tmp_path / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return [tmp_path / "run0", tmp_path / "run1"]


def test_the_newest_snapshot_of_each_folder_and_files_by_name_are_taken(runs: list[Path]) -> None:
    old, new, other = (path for run in runs for path in sorted(run.iterdir()))
    found = find_checkpoints([*runs, old, new])
    assert found.checkpoints == [new, other, old]
    assert found.notes == ["1 older snapshots of these runs are left out (--all-snapshots takes them)"]


def test_all_snapshots_are_taken_on_request(runs: list[Path]) -> None:
    found = find_checkpoints(runs, all_snapshots=True)
    assert len(found.checkpoints) == 3
    assert found.notes == []


def test_a_folder_without_snapshots_does_not_stop_the_others(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    found = find_checkpoints([tmp_path / "begun", *runs[1:]])
    assert len(found.checkpoints) == 1
    assert found.notes == [f"{tmp_path / 'begun'}: skipped: no network-snapshot-* in the folder"]


def test_nothing_to_measure_is_named(runs: list[Path]) -> None:
    with pytest.raises(FileNotFoundError, match="no such network file or run folder"):
        find_checkpoints([runs[0] / "none"])
    with pytest.raises(FileNotFoundError, match="no network-snapshot"):
        find_checkpoints([runs[0].parent])
