"""Which snapshot of a run is meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.checkpoints.snapshots import find_snapshot, snapshot_name, snapshots_in


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


def test_snapshots_are_ordered_by_the_images_seen(tmp_path: Path) -> None:
    names = ["network-snapshot-000072.safetensors", "network-snapshot-999999.pkl", "network-snapshot-1000000.pt"]
    make(tmp_path, *reversed(names), "network-snapshot-000073.png", "other.pkl", "network-snapshot-000074.pkl.part")
    assert [path.name for path in snapshots_in(tmp_path)] == names
    assert find_snapshot(tmp_path).name == "network-snapshot-1000000.pt"


def test_our_own_format_goes_before_a_copy_in_another(tmp_path: Path) -> None:
    make(tmp_path, "network-snapshot-000072.pkl", "network-snapshot-000072.safetensors", "network-snapshot-000072.pt")
    assert find_snapshot(tmp_path).suffix == ".safetensors"


def test_a_file_stands_for_itself(tmp_path: Path) -> None:
    make(tmp_path, "net.pkl", "network-snapshot-000072.pkl")
    assert find_snapshot(tmp_path / "net.pkl") == tmp_path / "net.pkl"


def test_the_name_that_is_written_is_found(tmp_path: Path) -> None:
    make(tmp_path, snapshot_name(72_000))
    assert find_snapshot(str(tmp_path)).name == "network-snapshot-000072.safetensors"
    make(tmp_path, snapshot_name(72_016), snapshot_name(72_999), snapshot_name(9_000))
    assert find_snapshot(str(tmp_path)).name == "network-snapshot-000072.999.safetensors"


def test_a_folder_of_the_hub_holds_one_network_and_snapshots_go_before_it(tmp_path: Path) -> None:
    make(tmp_path, "model.safetensors", "README.md")
    assert find_snapshot(tmp_path).name == "model.safetensors"
    make(tmp_path, snapshot_name(1000))
    assert find_snapshot(tmp_path).name == snapshot_name(1000)


def test_missing_snapshots_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no network-snapshot-\*.* or .pkl, nor model.safetensors, in the folder"
    ):
        find_snapshot(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such network file or run folder: .*nowhere"):
        find_snapshot(tmp_path / "nowhere")
