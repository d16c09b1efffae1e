from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from sc_layers.data import DSprites
from tests.tolerances import HALF_PIXEL, LEVEL

SQUARE, ELLIPSE, HEART = range(3)


def _all_sprites(x: int, y: int, resolution: int = 64) -> Tensor:
    """Every sprite at one position, float [3, 6, 40, H, W]."""
    sprites = np.indices((3, 6, 40)).reshape(3, -1).T
    images = DSprites(resolution).images(np.hstack([sprites, np.tile([x, y], (len(sprites), 1))]))
    return images[:, 0].float().unflatten(0, (3, 6, 40))


def _image(*factors: int, resolution: int = 64) -> npt.NDArray[np.uint8]:
    return DSprites(resolution).images(np.array([factors]))[0, 0].numpy()


def test_has_the_factors_of_the_original() -> None:
    data = DSprites()
    assert data.factor_names == ("shape", "scale", "orientation", "position_x", "position_y")
    assert data.factor_sizes == (3, 6, 40, 32, 32)
    assert len(data) == 737_280
    np.testing.assert_array_equal(data.factors_of([1, 32]), [[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]])


@pytest.mark.parametrize("resolution", [32, 64, 128])
def test_images_are_grey_bytes(resolution: int) -> None:
    images = DSprites(resolution).sample(5, torch.Generator().manual_seed(0))
    assert images.shape == (5, 1, resolution, resolution)
    assert images.dtype == torch.uint8


@pytest.mark.parametrize("resolution", [64, 128])
def test_images_are_black_and_white(resolution: int) -> None:
    images = DSprites(resolution).sample(300, torch.Generator().manual_seed(0))
    assert images.unique().tolist() == [0, 255]


def test_small_images_are_average_pools() -> None:
    factors = DSprites().sample_factors(100, torch.Generator().manual_seed(1))
    pooled = torch.nn.functional.avg_pool2d(DSprites(64).images(factors).float(), 2)
    torch.testing.assert_close(DSprites(32).images(factors).float(), pooled, atol=LEVEL / 2, rtol=0)


@pytest.mark.parametrize("resolution", [64, 128])
def test_every_sprite_is_whole_in_every_corner(resolution: int) -> None:
    middle = _all_sprites(16, 16, resolution).sum((-1, -2))
    for x, y in ((0, 0), (31, 0), (0, 31), (31, 31)):
        torch.testing.assert_close(_all_sprites(x, y, resolution).sum((-1, -2)), middle)


@pytest.mark.parametrize(("resolution", "step"), [(64, 1), (128, 2)])
def test_positions_move_the_sprite_right_and_down(resolution: int, step: int) -> None:
    image = _image(HEART, 3, 5, 10, 10, resolution=resolution)
    right = _image(HEART, 3, 5, 11, 10, resolution=resolution)
    down = _image(HEART, 3, 5, 10, 11, resolution=resolution)
    np.testing.assert_array_equal(right, np.roll(image, step, axis=1))
    np.testing.assert_array_equal(down, np.roll(image, step, axis=0))


def test_all_sprites_have_their_centre_of_mass_at_their_position() -> None:
    images = _all_sprites(4, 20)
    mass = images.sum((-1, -2))
    pixels = torch.arange(64) + 0.5
    across = (images.sum(-2) * pixels).sum(-1) / mass
    down = (images.sum(-1) * pixels).sum(-1) / mass
    torch.testing.assert_close(across, torch.full_like(across, 4 + 16), **HALF_PIXEL)
    torch.testing.assert_close(down, torch.full_like(down, 20 + 16), **HALF_PIXEL)


def test_sprites_grow_with_scale() -> None:
    assert (_all_sprites(16, 16).sum((-1, -2)).diff(dim=1) > 0).all()


@pytest.mark.parametrize("resolution", [64, 128])
@pytest.mark.parametrize(("shape", "distinct"), [(SQUARE, 10), (ELLIPSE, 20), (HEART, 40)])
def test_orientations_repeat_only_by_the_symmetry_of_the_shape(shape: int, distinct: int, resolution: int) -> None:
    for sprites in _all_sprites(16, 16, resolution)[shape]:
        assert len(sprites.flatten(1).unique(dim=0)) == distinct
        assert len(sprites[:distinct].flatten(1).unique(dim=0)) == distinct


def test_orientation_turns_counter_clockwise() -> None:
    upright, quarter = _all_sprites(16, 16)[HEART, 5, [0, 10]]
    np.testing.assert_array_equal(np.rot90(upright[16:48, 16:48].numpy()), quarter[16:48, 16:48].numpy())


def test_the_heart_points_down_and_has_a_notch() -> None:
    heart = _image(HEART, 5, 0, 16, 16)
    rows, columns = np.nonzero(heart)
    assert (columns[rows == rows.max()] >= 31).all()
    assert (columns[rows == rows.max()] <= 32).all()
    assert heart[rows.min(), 31] == 0
    np.testing.assert_array_equal(heart, heart[:, ::-1])


def test_an_unknown_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="at 32, 64, 128 pixels, got 16"):
        DSprites(16)
