"""Picture helpers against the authors' pictures, byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sc_layers import images
from tests.golden import load_golden
from tests.tolerances import ROUNDING


@pytest.mark.parametrize("kind", ["rgb", "gray"])
@pytest.mark.parametrize(("outline", "key"), [(True, "grid_png"), (False, "grid_png_nooutline")])
def test_grid_equals_the_authors_picture(kind: str, outline: bool, key: str) -> None:
    golden = load_golden("util")
    grid = images.image_grid(images.to_uint8(golden[f"imgs_{kind}"]), 4, outline)
    expected = golden[f"{key}_{kind}"]
    assert torch.equal(grid, expected[None] if kind == "gray" else expected.permute(2, 0, 1))


def test_byte_conversions_equal_the_authors() -> None:
    golden = load_golden("util")
    assert torch.equal(images.to_uint8(golden["u8_in"]), golden["u8_rint"])
    torch.testing.assert_close(images.to_network_range(golden["reals_u8"]), golden["reals_net"], **ROUNDING)


def test_masks_are_shown_on_one_scale() -> None:
    assert images.shown_masks(torch.tensor([-0.1, 0.0, 0.04, 0.25, 1.0, 1.1])).tolist() == pytest.approx(
        [0, 0, 0.2, 0.5, 1, 1]
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_picture(tmp_path: Path, channels: int) -> None:
    picture = torch.randint(0, 256, (channels, 5, 7), dtype=torch.uint8)
    images.save_png(picture, tmp_path / "picture.png")
    stored = np.asarray(Image.open(tmp_path / "picture.png"))
    assert np.array_equal(stored, picture[0].numpy() if channels == 1 else picture.permute(1, 2, 0).numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_gif_has_all_frames_and_repeats(tmp_path: Path) -> None:
    frames = [torch.full((3, 8, 8), value, dtype=torch.uint8) for value in (0, 100, 200)]
    images.save_gif(frames, tmp_path / "sweep.gif", milliseconds=50)
    gif = Image.open(tmp_path / "sweep.gif")
    assert gif.n_frames == 3
    assert gif.info["loop"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: images.image_grid(torch.zeros(5, 3, 2, 2, dtype=torch.uint8), 2), "5 images do not fill rows of 2"),
        (lambda: images.image_grid(torch.zeros(4, 3, 2, 2), 2), r"must be uint8 \[N, C, H, W\], got torch.float32"),
        (lambda: images.check_images(None, torch.zeros(4, 2)), r"returned NoneType, expected images \[4, C, H, W\]"),
        (lambda: images.check_images(torch.zeros(3, 1, 2, 2), torch.zeros(4, 2)), r"shape \(3, 1, 2, 2\), expected"),
        (
            lambda: images.check_images(torch.tensor([0.0, float("nan")]).view(2, 1, 1, 1), torch.ones(2, 1)),
            r"1 of 2 images with values that are not finite, first for the codes \[1.0\]",
        ),
    ],
)
def test_bad_input_is_named(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_figure_becomes_a_picture() -> None:
    figure = pytest.importorskip("matplotlib.figure").Figure(figsize=(2, 1), facecolor="red")
    picture = images.figure_image(figure)
    assert picture.dtype == torch.uint8
    assert picture[:, 3, 3].tolist() == [255, 0, 0]


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 15, 21)])
def test_a_film_has_the_frames(shape: tuple[int, ...], tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = [torch.full(shape, level, dtype=torch.uint8) for level in (0, 120, 240)]
    images.save_mp4(frames, tmp_path / "sweep.mp4", milliseconds=100, repeats=2)
    with av.open(str(tmp_path / "sweep.mp4")) as film:
        assert film.streams.video[0].average_rate == 10
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert [round(float(frame.mean()) / 120) for frame in shown] == [0, 1, 2, 0, 1, 2]
    assert shown[0].shape == (-(-shape[1] // 2) * 2, -(-shape[2] // 2) * 2, 3)
