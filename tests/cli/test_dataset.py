"""`sc-layers dataset`, run as a user would."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from sc_layers.cli import main
from sc_layers.data import open_dataset
from tests.data.files import random_pixels, write_labels, write_pngs


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["dataset", *map(str, arguments)])


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder with two sizes, alpha, a text and a damaged picture."""
    folder = tmp_path / "pictures"
    write_pngs(folder, random_pixels(3, size=16))
    Image.new("LA", (20, 10), (90, 0)).save(folder / "clear.png")
    (folder / "notes.txt").write_text("no picture")
    (folder / "broken.png").write_bytes((folder / "000.png").read_bytes()[:200])
    return folder


def test_info_tells_what_a_folder_holds_and_what_is_damaged(mixed: Path) -> None:
    result = _run("info", mixed, "--workers", 0)
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    assert f"{mixed}: 5 pictures" in lines
    assert "sizes: 16x16 (4), 20x10 (1)" in lines
    assert "modes: RGB (4), LA (1)" in lines
    assert "labels: none" in lines
    assert "note: 5 images, 1 file left out: .txt (1)" in lines
    assert "note: 1 of 5 images with an alpha channel, shown on white" in lines
    assert lines[-2] == "damaged: 1"
    assert lines[-1].startswith(f"  {mixed / 'broken.png'} cannot be read as an image")


def test_info_of_the_beginnings_is_quick_and_says_so(mixed: Path) -> None:
    result = _run("info", mixed, "--quick")
    assert result.exit_code == 0
    assert "damaged: 0 (by the beginnings of files alone)" in result.output


def test_info_tells_of_labels_that_cannot_be_used(mixed: Path) -> None:
    write_labels(mixed, [["000.png", "cat"]])
    assert "labels: cannot be used: " in _run("info", mixed, "--quick").output
    write_labels(mixed, [[path.name, 3] for path in mixed.glob("*.png")])
    assert "labels: 1 classes from 3 to 3" in _run("info", mixed, "--quick").output


def test_info_tells_the_factors_of_a_set(tmp_path: Path) -> None:
    assert "factors: color (8), shape (3), position_x (20), position_y (20)" in _run("info", "clevr").output
    np.savez(tmp_path / "a.npz", imgs=random_pixels(4), factors=np.array([[0, 1], [0, 2], [0, 3], [0, 3]]))
    result = _run("info", tmp_path / "a.npz", "--workers", 0)
    assert result.exit_code == 0
    assert "factors: factor 0 (1), factor 1 (3)" in result.output
    assert "labels: vectors of 2 numbers from 0 to 3" in result.output


def test_convert_makes_one_size_of_all_and_counts_what_it_left_out(mixed: Path, tmp_path: Path) -> None:
    arguments = ("convert", mixed, tmp_path / "out.zip", "--crop", "center", "--resolution", 8, "--background", "black")
    result = _run(*arguments, "--workers", 0)
    assert result.exit_code == 2
    assert "broken.png cannot be read as an image" in result.output
    assert "--skip-bad" in result.output
    result = _run(*arguments, "--workers", 0, "--skip-bad")
    assert result.exit_code == 0, result.output
    made = f"4 pictures of 8x8 pixels in {tmp_path / 'out.zip'}, 1 damaged left out"
    assert result.stdout.splitlines()[-1] == made
    assert (open_dataset(tmp_path / "out.zip").images_at([3]) == 0).all()


def test_convert_names_the_option_for_labels_that_cannot_be_used(mixed: Path, tmp_path: Path) -> None:
    (mixed / "broken.png").unlink()
    write_labels(mixed, [["000.png", "cat"]])
    arguments = ("convert", mixed, tmp_path / "out.zip", "--crop", "8x8", "--workers", 0)
    assert "--no-labels leaves them out" in _run(*arguments).output
    assert _run(*arguments, "--no-labels").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--crop", "middle"], "crop must be center, celeba or a square such as 128x128, got 'middle'"),
        (["--background", "red"], "background must be white, black or #rrggbb, got 'red'"),
        (["--resolution", "0"], "resolution must lie in 1 to 4096, got 0"),
        (["--workers", "-1"], "-1"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(tmp_path: Path, arguments: list[str], message: str) -> None:
    write_pngs(tmp_path / "in", random_pixels(1))
    result = _run("convert", tmp_path / "in", tmp_path / "out.zip", *arguments)
    assert result.exit_code == 2
    assert message in result.output.splitlines()[-1]
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("command", ["info", "convert"])
def test_a_source_that_does_not_exist_is_one_line(tmp_path: Path, command: str) -> None:
    result = _run(command, tmp_path / "absent", *([tmp_path / "out.zip"] if command == "convert" else []))
    assert result.exit_code == 2
    assert "no data set" in result.output.splitlines()[-1]
