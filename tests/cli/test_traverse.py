"""`sc-layers traverse`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.running import assert_mistake, run


def test_traverse_writes_labelled_rows_with_masks(run_dir: Path, tmp_path: Path) -> None:
    options = ("--seeds", "1", "--points", "5", "--codes", "0,2", "--mp4")
    result = run("traverse", run_dir, *options, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    width, height = Image.open(tmp_path / "traverse0001.png").size
    assert width > 6 * 96
    assert 2 * 96 < height < 3 * 96
    gif = Image.open(tmp_path / "traverse0001.gif")
    assert gif.size == (2 * 32, 2 * 32)
    assert gif.n_frames == 8
    assert (tmp_path / "traverse0001.mp4").read_bytes()[4:8] == b"ftyp"


def test_rows_are_ordered_by_tpl_and_chosen_by_it(run_dir: Path, tmp_path: Path) -> None:
    sizes = []
    for codes in ("all", "top2"):
        options = ("--codes", codes, "--order", "tpl", "--distance", "mse", "--overlay", "--points", "3")
        result = run("traverse", run_dir, *options, "--outdir", tmp_path)
        assert result.exit_code == 0, result.output
        sizes.append(Image.open(tmp_path / "traverse0000.png").height)
    assert 90 < sizes[0] - sizes[1] < 110


def test_two_networks_are_drawn_side_by_side(run_dir: Path, tmp_path: Path) -> None:
    alone, both = tmp_path / "alone", tmp_path / "both"
    run("traverse", run_dir, "--points", "3", "--outdir", alone)
    result = run("traverse", run_dir, "--points", "3", "--compare", run_dir, "--outdir", both)
    assert result.exit_code == 0, result.output
    name = "traverse0000.png"
    assert Image.open(both / name).width == 2 * Image.open(alone / name).width


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
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--codes", "top0"), "'top0' names no code")
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--range", "1,2,3"), "neither one number nor two")
    assert_mistake(run("traverse", run_dir, "--outdir", outdir, "--range", "1,nan"), "not a finite number")
    assert not outdir.exists()
