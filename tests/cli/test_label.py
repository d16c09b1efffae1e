"""`sc-layers label`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sc_layers import load_network
from tests.checkpoints import samples
from tests.cli.running import assert_mistake, run


@pytest.fixture
def network(run_dir: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(run_dir / "network-snapshot-000000.016.safetensors", tmp_path / "net.safetensors"))


def test_names_are_kept_in_the_file_and_shown(network: Path) -> None:
    before = load_network(network)
    assert run("label", network).output == "no code has a name\n"
    assert run("label", network, "2=floor hue", "0=object").output == "code 0: object\ncode 2: floor hue\n"
    assert run("label", network, "0=").output == "code 2: floor hue\n"
    after = load_network(network)
    assert after["meta"] == {**before["meta"], "code_names": {"2": "floor hue"}}
    ours, theirs = after["G_ema"].state_dict(), before["G_ema"].state_dict()
    assert all(bool((ours[key] == theirs[key]).all()) for key in theirs)


def test_mistakes_are_named(network: Path, tmp_path: Path) -> None:
    assert_mistake(run("label", network, "smile"), "'smile' is no label such as '5=smile'")
    foreign = tmp_path / "foreign.pt"
    foreign.write_bytes(samples.all_formats()["rosinality"])
    assert_mistake(run("label", foreign, "1=a"), "convert it first")


def test_a_checkpoint_of_a_training_is_left_as_it_is(run_dir: Path, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copy(run_dir / "training-state-000000.016.pt", tmp_path))
    before = checkpoint.read_bytes()
    assert_mistake(run("label", checkpoint, "1=a"), "a training's checkpoint", "convert it first")
    assert checkpoint.read_bytes() == before
