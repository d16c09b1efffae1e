"""What the explorer draws."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sc_layers.checkpoints.opening import open_generator
from sc_layers.metrics.distances import make_distance
from sc_layers.pictures.explorer.scene import Scene, View
from sc_layers.pictures.ranking import measure_codes
from tests.cli.running import run
from tests.networks import NUM_CODES, save_small_networks

ASKED = {"seed": 3, "truncation": 1, "values": {}, "sight": "image", "code": 0}


@pytest.fixture
def network(tmp_path: Path) -> Path:
    return save_small_networks(tmp_path / "network.safetensors")


@pytest.fixture
def scene(network: Path) -> Scene:
    return Scene(open_generator(network))


def view(**changes: Any) -> View:
    return View.read({**ASKED, **changes}, NUM_CODES)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed is a whole number from 0 to 4294967295, got -1"),
        ({"seed": True}, "seed is a whole number"),
        ({"seed": 2**32}, "seed is a whole number"),
        ({"truncation": float("nan")}, "truncation is a number from -10 to 10, got nan"),
        ({"values": {"3": 1.0}}, "code is a whole number from 0 to 2, got '3'"),
        ({"values": {"0": 5}}, "value is a number from -4 to 4, got 5"),
        ({"values": []}, "values are an object of numbers"),
        ({"sight": "secret"}, "sight is one of image, mask, change, got 'secret'"),
        ({"code": None}, "code is a whole number from 0 to 2"),
    ],
)
def test_a_wrong_view_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        view(**wrong)


def test_the_command_of_a_view_writes_the_same_picture(scene: Scene, tmp_path: Path) -> None:
    picture = scene.draw(view(truncation=0.7, values={"1": -1.25, "2": 3}))
    program, *words = shlex.split(picture.command)
    assert program == "sc-layers"
    assert run(*words, "--outdir", tmp_path / "out").exit_code == 0
    written = (tmp_path / "out" / "seed0003.png").read_bytes()
    assert np.array_equal(pixels(picture.image), pixels(written))
    assert not np.array_equal(pixels(picture.image), pixels(scene.draw(view()).image))


def test_a_picture_tells_the_codes_of_its_seed_and_the_masks_of_all(scene: Scene) -> None:
    still, moved = scene.draw(view()), scene.draw(view(values={"0": 2}))
    assert still.codes == moved.codes
    assert len(still.codes) == NUM_CODES
    assert sorted(still.masks) == [0, 1, 2]
    assert np.array_equal(pixels(still.masks[0]).shape, (32, 32, 3))


def test_the_mask_is_painted_over_the_image(scene: Scene) -> None:
    picture = scene.draw(view())
    mask = pixels(picture.masks[1])[..., 0] / 255
    change = pixels(scene.draw(view(sight="mask", code=1)).image) - pixels(picture.image)
    assert mask.max() > 0.1
    assert np.corrcoef(mask.ravel(), np.abs(change).sum(2).ravel())[0, 1] > 0.3
    assert not change[mask == 0].any()


def test_changed_pixels_are_those_that_the_code_changes(scene: Scene) -> None:
    value = scene.draw(view()).codes[1]
    ends = [pixels(scene.draw(view(values={"1": value + step})).image)[..., 0] for step in (-1, 1)]
    seen = pixels(scene.draw(view(sight="change", code=1)).image)[..., 0]
    assert np.abs((seen / 255) ** 2 - np.abs(ends[1] - ends[0]) / 255).max() < 0.01


def test_codes_stand_in_the_order_of_their_length(network: Path) -> None:
    opened = open_generator(network)
    tpl = measure_codes(opened, make_distance("mse"))
    rows = Scene(opened, tpl).codes()
    lengths = [row["tpl"] for row in rows]
    assert lengths == sorted(lengths, reverse=True)
    assert [row["code"] for row in rows] == tpl.ranking
    assert all(row["error"] >= 0 and row["masked"] for row in rows)
    assert [row["code"] for row in Scene(opened).codes()] == [0, 1, 2]


def test_a_name_is_kept_in_the_file(scene: Scene, network: Path) -> None:
    scene.rename(1, "smile")
    assert scene.codes()[1]["name"] == "smile"
    assert open_generator(network).names == {1: "smile"}
    scene.rename(1, "")
    assert open_generator(network).names == {}
    with pytest.raises(ValueError, match="code is a whole number from 0 to 2, got 9"):
        scene.rename(9, "nobody")
    with pytest.raises(ValueError, match="at most 100 characters"):
        scene.rename(0, "x" * 101)


def test_a_sweep_is_a_film_of_one_code(scene: Scene) -> None:
    film = Image.open(io.BytesIO(scene.sweep(view(code=2))))
    assert film.format == "GIF"
    assert film.n_frames > 10
    assert film.size == (32, 32)
