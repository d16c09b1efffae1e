"""`sc-layers train`: runs, resuming, and every mistake in one line with exit status 2."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from PIL import Image

from tests.cli.running import TINY_TRAINING, assert_mistake, run


def test_run_uses_the_settings_given(run_dir: Path) -> None:
    options = json.loads((run_dir / "training_options.json").read_text())
    assert options["data"] == "shapes3d"
    assert options["training"]["seed"] == 3
    assert options["training"]["batch"] == 8
    assert options["training"]["r1_gamma"] == 1.0
    assert run_dir.name == "00000-shapes3d32-demo-ps_sc"


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    result = run(*TINY_TRAINING, "--outdir", tmp_path / "runs", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "3 codes" in result.output
    assert '"batch": 8' in result.output
    assert not (tmp_path / "runs").exists()


def test_resume_goes_on_from_the_newest_snapshot(run_dir: Path, tmp_path: Path) -> None:
    arguments = ("train", "--data", "shapes3d", "--resolution", "32", "--preset", "demo", "--batch", "8")
    result = run(*arguments, "--kimg", "0.024", "--resume", run_dir, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "at 0.016 kimg" in result.output
    (resumed,) = tmp_path.iterdir()
    assert json.loads((resumed / "stats.jsonl").read_text())["kimg"] == 0.024


def test_tpl_is_measured_after_each_snapshot(tmp_path: Path) -> None:
    options = ("--tpl", "tpl_small_0.3", "--distance", "mse", "--tensorboard")
    result = run(*TINY_TRAINING, "--outdir", tmp_path, "--snap", "0.008", *options)
    assert result.exit_code == 0, result.output
    (folder,) = tmp_path.iterdir()
    lines = (folder / "metric-tpl_small_0.3.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert json.loads(lines[-1])["snapshot_pkl"] == "network-snapshot-000000.safetensors"
    assert (folder / "traversal-000000.png").exists()
    assert list(folder.glob("events.out.tfevents.*"))


def test_mistakes_in_training_are_named_and_write_nothing(tmp_path: Path) -> None:
    outdir = tmp_path / "runs"
    folder = tmp_path / "pictures"
    folder.mkdir()

    def train(*arguments: object) -> Result:
        return run("train", "--preset", "demo", "--outdir", outdir, *arguments)

    shapes = ("--data", "shapes3d", "--resolution", "32")
    assert_mistake(train("--data", "shapes4d"), "shapes4d", "expected shapes3d, dsprites")
    assert_mistake(train("--data", folder), str(folder))
    assert_mistake(train(*shapes, "--module-list", "[Const-8, ResKonv-up-1]"), "ResKonv-up-1", "ResConv")
    assert_mistake(train(*shapes, "--module-list", "[Const-8, ResConv-up-1, C_spgroup-1-1]"), "32", "8")
    assert_mistake(train(*shapes, "--batch", "6"), "6", "multiple of 4")
    assert_mistake(train(*shapes, "--batch", "-8"), "batch must be positive, got -8")
    assert_mistake(train(*shapes, "--resume", tmp_path / "no.pkl"), "no such network file or run folder")
    assert_mistake(train(*shapes, "--device", "cuda:77"), "cuda:77")
    picture = folder / "a.png"
    Image.new("RGB", (32, 32)).save(picture)
    Image.new("RGB", (16, 16)).save(folder / "b.png")
    assert_mistake(train("--data", folder), "b.png", "16", "32")
    assert_mistake(train(*shapes, "--resume", picture), "a.png")
    (folder / "b.png").write_bytes(picture.read_bytes()[:60])
    assert_mistake(train("--data", folder), "b.png")
    assert not outdir.exists()


def test_what_was_read_is_told_and_sizes_of_no_network_are_refused(tmp_path: Path) -> None:
    Image.new("RGBA", (32, 32)).save(tmp_path / "clear.png")
    (tmp_path / "notes.txt").write_text("no picture")
    arguments = ("train", "--preset", "demo", "--dry-run", "--background", "black")
    result = run(*arguments, "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert "note: 1 image, 1 file left out: .txt (1)" in result.output
    assert "note: 1 of 1 image with an alpha channel, shown on black" in result.output
    Image.new("RGB", (100, 100)).save(tmp_path / "clear.png")
    command = f"`sc-layers dataset convert {tmp_path} OUT.zip --crop center --resolution 64`"
    assert_mistake(run(*arguments, "--data", tmp_path), "100x100 pixels, networks need a power of two", command)


def test_an_incomplete_label_file_does_not_stop_a_run(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (32, 32)).save(tmp_path / f"{name}.png")
    (tmp_path / "dataset.json").write_text('{"labels": [["a.png", "cat"]]}')
    result = run("train", "--preset", "demo", "--dry-run", "--data", tmp_path)
    assert result.exit_code == 0, result.output
    assert "note: dataset.json is not read: training uses no labels" in result.output
