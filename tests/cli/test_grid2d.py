"""`sc-layers grid2d`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.running import assert_mistake, run


def test_a_plane_is_drawn_for_each_seed(run_dir: Path, tmp_path: Path) -> None:
    result = run("grid2d", run_dir, "--codes", "0,2", "--points", "3", "--seeds", "1,2", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    for name in ("plane0001.png", "plane0002.png"):
        width, height = Image.open(tmp_path / name).size
        assert width > 3 * 96
        assert height > 3 * 96


def test_rotated_sweeps_and_the_curve_stand_below_the_plane(run_dir: Path, tmp_path: Path) -> None:
    heights = []
    for options in ((), ("--rotated", "--distance", "mse")):
        result = run("grid2d", run_dir, "--codes", "0,2", "--points", "3", *options, "--outdir", tmp_path)
        assert result.exit_code == 0, result.output
        heights.append(Image.open(tmp_path / "plane0000.png").height)
    assert heights[1] > heights[0] + 5 * 96 + 200


def test_mistakes_are_named(run_dir: Path, tmp_path: Path) -> None:
    def draw(codes: str, points: str = "3"):
        return run("grid2d", run_dir, "--codes", codes, "--points", points, "--outdir", tmp_path / "out")

    assert_mistake(draw("1"), "--codes takes two codes")
    assert_mistake(draw("1,1"), "two codes, got 1 twice")
    assert_mistake(draw("1,9"), "code 9 does not exist")
    assert_mistake(draw("0,1", "1"), "--points must be at least 2")
    assert_mistake(draw("0,1", "1000"), "a sheet of 1,000 x 1,000 images is too large")
    assert not (tmp_path / "out").exists()
