"""`sc-layers traverse`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.running import assert_mistake, run


def test_traverse_writes_rows_of_codes_with_masks(run_dir: Path, tmp_path: Path) -> None:
    result = run("traverse", run_dir, "--seeds", "1", "--points", "5", "--codes", "0,2", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    assert "rows are codes 0, 2" in result.output
    assert Image.open(tmp_path / "traverse0001.png").size == (6 * 32, 2 * 32)
    gif = Image.open(tmp_path / "traverse0001.gif")
    assert gif.size == (2 * 32, 2 * 32)
    assert gif.n_frames == 8


def test_mistakes_in_pictures_are_named_and_write_nothing(run_dir: Path, tmp_path: Path) -> None:
    outdir = tmp_path / "out"
    no_network = tmp_path / "notes.txt"
    no_network.write_text("no network")
    assert_mistake(run("traverse", no_network, "--outdir", outdir), "notes.txt")
    assert_mistake(run("traverse", tmp_path / "absent", "--outdir", outdir), "no such network file or run folder")
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--seeds", "0-x"), "0-x")
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--seeds", "5-2"), "5-2")
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--codes", "9"), "code 9 does not exist")
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--points", "1"), "at least 2 points")
    assert not outdir.exists()
