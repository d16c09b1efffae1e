"""`sc-layers train`, `generate` and `traverse`, run as a user would; every mistake is one line and exit status 2."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from sc_layers.cli import COMMANDS, main

TINY = (
    *("train", "--data", "shapes3d", "--resolution", "32", "--preset", "demo", "--kimg", "0.016", "--batch", "8"),
    *("--module-list", "[Const-8, ResConv-up-1, C_spgroup-2-2, ResConv-up-1, C_spgroup-1-1, ResConv-up-1]"),
)


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates."""
    outdir = tmp_path_factory.mktemp("runs")
    result = _run(*TINY, "--outdir", outdir, "--snap", "0.008", "--seed", "3")
    assert result.exit_code == 0, result.output
    (folder,) = outdir.iterdir()
    assert f"finished: {folder / 'network-snapshot-000000.safetensors'}" in result.output
    return folder


def test_run_uses_the_settings_given(run_dir: Path) -> None:
    options = json.loads((run_dir / "training_options.json").read_text())
    assert options["data"] == "shapes3d"
    assert options["training"]["seed"] == 3
    assert options["training"]["batch"] == 8
    assert options["training"]["r1_gamma"] == 1.0
    assert run_dir.name == "00000-shapes3d32-demo-ps_sc"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = _run(*TINY, "--outdir", tmp_path / "runs", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "3 codes" in result.output
    assert '"batch": 8' in result.output
    assert not (tmp_path / "runs").exists()


def test_resume_goes_on_from_the_newest_snapshot(run_dir: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", "shapes3d", "--resolution", "32", "--preset", "demo", "--batch", "8")
    result = _run(*arguments, "--kimg", "0.024", "--resume", run_dir, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "at 0.016 kimg" in result.output
    (resumed,) = tmp_path.iterdir()
    assert json.loads((resumed / "stats.jsonl").read_text())["kimg"] == 0.024


def test_tpl_is_measured_after_each_snapshot(tmp_path: Path) -> None:
    options = ("--tpl", "tpl_small_0.3", "--distance", "mse", "--tensorboard")
    result = _run(*TINY, "--outdir", tmp_path, "--snap", "0.008", *options)
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    lines = (folder / "metric-tpl_small_0.3.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[-1])["snapshot_pkl"] == "network-snapshot-000000.safetensors"
    assert (folder / "traversal-000000.png").exists()
    assert list(folder.glob("events.out.tfevents.*"))


def test_generate_writes_a_picture_a_seed_and_a_grid(run_dir: Path, tmp_path: Path) -> None:
    result = _run("generate", run_dir, "--seeds", "0-2,7", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["grid.png", "seed0000.png", "seed0001.png", "seed0002.png", "seed0007.png"]
    assert Image.open(tmp_path / "seed0007.png").size == (32, 32)
    assert Image.open(tmp_path / "grid.png").size == (4 * 32, 32)


def test_seed_decides_the_picture(run_dir: Path, tmp_path: Path) -> None:
    for folder, seeds in (("a", "5"), ("b", "4-6")):
        assert _run("generate", run_dir, "--seeds", seeds, "--outdir", tmp_path / folder).exit_code == 0
    a, b = (torch.frombuffer(bytearray((tmp_path / f / "seed0005.png").read_bytes()), dtype=torch.uint8) for f in "ab")
    assert torch.equal(a, b)


def test_traverse_writes_rows_of_codes_with_masks(run_dir: Path, tmp_path: Path) -> None:
    result = _run("traverse", run_dir, "--seeds", "1", "--points", "5", "--codes", "0,2", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "rows are codes 0, 2" in result.output
    assert Image.open(tmp_path / "traverse0001.png").size == (6 * 32, 2 * 32)
    gif = Image.open(tmp_path / "traverse0001.gif")
    assert gif.size == (2 * 32, 2 * 32)
    assert gif.n_frames == 8


def _assert_mistake(result: Result, *parts: str) -> None:
    assert result.exit_code == 2, result.output
    lines = result.output.strip().splitlines()
    assert lines[-1].startswith("Error: "), result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[-1]


def test_mistakes_in_training_are_named_and_write_nothing(tmp_path: Path) -> None:
    outdir = tmp_path / "runs"
    folder = tmp_path / "pictures"
    folder.mkdir()

    def train(*arguments: object) -> Result:
        return _run("train", "--preset", "demo", "--outdir", outdir, *arguments)

    shapes = ("--data", "shapes3d", "--resolution", "32")
    _assert_mistake(train("--data", "shapes4d"), "shapes4d", "expected shapes3d, dsprites")
    _assert_mistake(train("--data", folder), str(folder))
    _assert_mistake(train(*shapes, "--module-list", "[Const-8, ResKonv-up-1]"), "ResKonv-up-1", "ResConv")
    _assert_mistake(train(*shapes, "--module-list", "[Const-8, ResConv-up-1, C_spgroup-1-1]"), "32", "8")
    _assert_mistake(train(*shapes, "--batch", "6"), "6", "multiple of 4")
    _assert_mistake(train(*shapes, "--batch", "-8"), "batch must be positive, got -8")
    _assert_mistake(train(*shapes, "--resume", tmp_path / "no.pkl"), "no such network file or run folder")
    _assert_mistake(train(*shapes, "--device", "cuda:77"), "cuda:77")
    picture = folder / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    Image.new("RGB", (16, 16)).save(folder / "b.png")
    _assert_mistake(train("--data", folder), "b.png", "16", "32")
    _assert_mistake(train(*shapes, "--resume", picture), "a.png")
    (folder / "b.png").write_bytes(picture.read_bytes()[:60])
    _assert_mistake(train("--data", folder), "b.png")
    assert not outdir.exists()


@pytest.mark.parametrize("command", ["generate", "traverse"])
def test_mistakes_in_pictures_are_named_and_write_nothing(command: str, run_dir: Path, tmp_path: Path) -> None:
    outdir = tmp_path / "out"
    no_network = tmp_path / "notes.txt"
    no_network.write_text("no network")
    _assert_mistake(_run(command, no_network, "--outdir", outdir), "notes.txt")
    _assert_mistake(_run(command, tmp_path / "absent", "--outdir", outdir), "no such network file or run folder")
    _assert_mistake(_run(command, run_dir, "--outdir", outdir, "--seeds", "0-x"), "0-x")
    _assert_mistake(_run(command, run_dir, "--outdir", outdir, "--seeds", "5-2"), "5-2")
    if command == "traverse":
        _assert_mistake(_run(command, run_dir, "--outdir", outdir, "--codes", "9"), "code 9 does not exist")
        _assert_mistake(_run(command, run_dir, "--outdir", outdir, "--points", "1"), "at least 2 points")
    assert not outdir.exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = _run(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {command}" in result.output


def test_unknown_command_is_named() -> None:
    _assert_mistake(_run("trian"), "trian")
