"""`sc-layers generate`."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.cli.running import assert_mistake, run
from tests.networks import save_small_networks


def test_generate_writes_a_picture_a_seed_and_a_grid(run_dir: Path, tmp_path: Path) -> None:
    result = run("generate", run_dir, "--seeds", "0-2,7", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["grid.png", "seed0000.png", "seed0001.png", "seed0002.png", "seed0007.png"]
    assert Image.open(tmp_path / "seed0007.png").size == (32, 32)
    assert Image.open(tmp_path / "grid.png").size == (4 * 32, 32)


def test_the_grid_of_a_prime_number_of_seeds_is_wide_and_filled_with_white(run_dir: Path, tmp_path: Path) -> None:
    assert run("generate", run_dir, "--seeds", "0-10", "--outdir", tmp_path).exit_code == 0
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size == (6 * 32, 2 * 32)
    assert grid.crop((5 * 32, 32, 6 * 32, 2 * 32)).getextrema() == ((255, 255),) * 3


def test_seed_decides_the_picture(run_dir: Path, tmp_path: Path) -> None:
    for folder, seeds in (("a", "5"), ("b", "4-6")):
        assert run("generate", run_dir, "--seeds", seeds, "--outdir", tmp_path / folder).exit_code == 0
    alone, among_others = ((tmp_path / folder / "seed0005.png").read_bytes() for folder in "ab")
    assert alone == among_others
    assert alone != (tmp_path / "b" / "seed0004.png").read_bytes()


def test_codes_are_drawn_as_in_the_training_unless_asked_otherwise(tmp_path: Path) -> None:
    for latents in ("uniform", "normal"):
        network = save_small_networks(tmp_path / f"{latents}.safetensors", training={"latents": latents})
        for asked in ((), ("--latents", "normal"), ("--latents", "uniform")):
            outdir = tmp_path / "".join([latents, *asked])
            assert run("generate", network, "--seeds", 3, "--outdir", outdir, *asked).exit_code == 0
    pictures = {path.parent.name: path.read_bytes() for path in tmp_path.glob("*/seed0003.png")}
    assert pictures["uniform"] == pictures["uniform--latentsuniform"] == pictures["normal--latentsuniform"]
    assert pictures["normal"] == pictures["normal--latentsnormal"] == pictures["uniform--latentsnormal"]
    assert pictures["uniform"] != pictures["normal"]


def test_codes_are_set(run_dir: Path, tmp_path: Path) -> None:
    for folder, options in (("seed", ()), ("other", ("--set", "0=1.5,2=-2"))):
        assert run("generate", run_dir, "--seeds", "4", "--outdir", tmp_path / folder, *options).exit_code == 0
    assert (tmp_path / "seed" / "seed0004.png").read_bytes() != (tmp_path / "other" / "seed0004.png").read_bytes()
    mistakes = {"3=x": "'x'", "1.5": "'1.5' gives no code a value", "0=nan": "not a finite number", "99=1": "code 99"}
    for wrong, message in mistakes.items():
        assert_mistake(run("generate", run_dir, "--set", wrong, "--outdir", tmp_path / "none"), message)
    assert not (tmp_path / "none").exists()


def test_mistakes_in_pictures_are_named_and_write_nothing(run_dir: Path, tmp_path: Path) -> None:
    outdir = tmp_path / "out"
    no_network = tmp_path / "notes.txt"
    no_network.write_text("no network")
    assert_mistake(run("generate", no_network, "--outdir", outdir), "notes.txt")
    assert_mistake(run("generate", tmp_path / "absent", "--outdir", outdir), "no such network file or run folder")
    assert_mistake(run("generate", run_dir, "--outdir", outdir, "--seeds", "0-x"), "0-x")
    assert_mistake(run("generate", run_dir, "--outdir", outdir, "--seeds", "5-2"), "5-2")
    assert not outdir.exists()
