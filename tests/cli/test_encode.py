"""`sc-layers encode`, and drawing what it encoded."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sc_layers.checkpoints import load_network, save_network
from sc_layers.checkpoints.encodings import Encoding
from tests.cli.running import assert_mistake, run
from tests.networks import save_small_networks, small_networks


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save_small_networks(tmp_path / "network.safetensors")


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path), dtype=int)


def test_images_are_encoded_drawn_again_and_edited(network: Path, tmp_path: Path) -> None:
    assert run("generate", network, "--seeds", "7-8", "--outdir", tmp_path).exit_code == 0
    images = [tmp_path / f"seed000{seed}.png" for seed in (7, 8)]
    result = run("encode", network, *images, "--steps", "60", "--outdir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    errors = re.findall(r"(\d): .*seed\d+.png, error ([\d.]+) of 255 as read, ([\d.]+) after 60 steps", result.output)
    assert [index for index, _, _ in errors] == ["0", "1"]
    assert all(float(after) < float(before) for _, before, after in errors)
    encoded = ("--encoded", tmp_path / "out" / "encoded.safetensors")
    assert run("generate", network, *encoded, "--seeds", "0-1", "--outdir", tmp_path / "again").exit_code == 0
    for index, (_, _, after) in enumerate(errors):
        difference = pixels(tmp_path / "again" / f"seed000{index}.png") - pixels(images[index])
        assert np.sqrt(np.square(difference).mean()) == pytest.approx(float(after), abs=0.3)
    edited = run(
        "edit", network, *encoded, "--sources", "0", "--from", "1", "--attributes", "x=1", "--outdir", tmp_path
    )
    assert edited.exit_code == 0, edited.output
    for command in ("traverse", "generate"):
        wrong = run(command, network, *encoded, "--seeds", "2", "--outdir", tmp_path / "none")
        assert_mistake(wrong, "there is no encoded image 2: there are 2, from 0")


def test_the_averaged_recogniser_reads_images(network: Path, tmp_path: Path) -> None:
    networks = load_network(network)
    Image.effect_noise((32, 32), 60).save(tmp_path / "image.png")
    codes = []
    for averaged in (networks["Q"], small_networks(1)["Q"]):
        save_network(tmp_path / "both.pt", G_ema=networks["G_ema"], Q=networks["Q"], Q_ema=averaged)
        result = run("encode", tmp_path / "both.pt", tmp_path / "image.png", "--steps", "1", "--outdir", tmp_path)
        assert result.exit_code == 0, result.output
        codes.append(Encoding.load(tmp_path / "encoded.safetensors").codes)
    assert (codes[0] - codes[1]).abs().max() > 0.1


def test_an_image_of_another_size_is_cropped_or_refused(network: Path, tmp_path: Path) -> None:
    Image.effect_noise((50, 40), 60).save(tmp_path / "wide.png")
    wide = tmp_path / "wide.png"
    result = run("encode", network, wide, "--outdir", tmp_path / "out")
    assert_mistake(result, "wide.png has 50x40 pixels, the network makes 32x32: --crop center")
    assert not (tmp_path / "out").exists()
    cropped = run("encode", network, wide, "--crop", "center", "--steps", "1", "--outdir", tmp_path / "out")
    assert cropped.exit_code == 0, cropped.output
    assert (tmp_path / "out" / "encoded.png").is_file()


def test_mistakes_are_named(network: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    assert_mistake(run("encode", network, tmp_path / "notes.png"), "notes.png cannot be read as an image")
    assert_mistake(run("encode", network, tmp_path / "absent.png"), "absent.png")
    assert_mistake(run("generate", network, "--encoded", network, "--outdir", tmp_path), "sc-layers encode")
