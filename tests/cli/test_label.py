"""`sc-layers label`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

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


def test_codes_without_a_name_are_suggested_the_longest_first(network: Path, tmp_path: Path) -> None:
    assert run("label", network, "1=object").exit_code == 0
    result = run("label", network, "--suggest", "--distance", "mse", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    lines = re.findall(r"code (\d), tpl ([\d.e+]+) ± \S+: no name", result.output)
    assert sorted(code for code, _ in lines) == ["0", "2"]
    lengths = [float(length) for _, length in lines]
    assert lengths == sorted(lengths, reverse=True)
    assert 2 * 96 < Image.open(tmp_path / "unnamed.png").height < 3 * 96
    assert run("label", network, *(f"{code}=x" for code in (0, 2))).exit_code == 0
    assert run("label", network, "--suggest", "--distance", "mse").output.endswith("every code has a name\n")
    assert_mistake(run("label", network, "--suggest", "1=a"), "give the names in another call")


def test_names_stay_when_the_training_goes_on(run_dir: Path, tmp_path: Path) -> None:
    going_on = tmp_path / "run"
    shutil.copytree(run_dir, going_on)
    assert run("label", going_on, "2=floor hue").exit_code == 0
    result = run("train", "--resume", going_on, "--kimg", "0.024")
    assert result.exit_code == 0, result.output
    assert (going_on / "network-snapshot-000000.024.safetensors").is_file()
    assert run("label", going_on).output == "code 2: floor hue\n"


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
