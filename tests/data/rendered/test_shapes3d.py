from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sc_layers.data import Shapes3D
from sc_layers.data.rendered.shapes3d import (
    FLOOR,
    HIGHLIGHT,
    NUM_MAPS,
    OBJECT,
    ORIENTATIONS,
    SCALES,
    SKY,
    SOLIDS,
    WALL,
    coefficient_maps,
)

RED, CYAN = 0, 5  # hues
CUBE, CYLINDER, SPHERE, CAPSULE = range(4)
LEVEL = 1  # of 255: one rounding


def _maps(index: int) -> Tensor:
    """One kind of coefficient map, [scales, shapes, orientations, 64, 64]."""
    maps = torch.from_numpy(coefficient_maps(64)[:, index].copy())
    return maps.unflatten(0, (len(SCALES), len(SOLIDS), len(ORIENTATIONS)))


def _image(*factors: int, resolution: int = 64) -> Tensor:
    return Shapes3D(resolution).images(np.array([factors]))[0].int()


def test_has_the_factors_of_the_original() -> None:
    data = Shapes3D()
    assert data.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    assert data.factor_sizes == (10, 10, 10, 8, 4, 15)
    assert len(data) == 480_000
    assert [solid.name for solid in SOLIDS] == ["cube", "cylinder", "sphere", "capsule"]


def test_orientation_runs_fastest() -> None:
    np.testing.assert_array_equal(
        Shapes3D().factors_of([0, 1, 15, 479_999]),
        [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, 0], [9, 9, 9, 7, 3, 14]],
    )


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_images_are_rgb_bytes(resolution: int) -> None:
    images = Shapes3D(resolution).sample(5, torch.Generator().manual_seed(0))
    assert images.shape == (5, 3, resolution, resolution)
    assert images.dtype == torch.uint8


def test_sky_is_above_wall_above_floor_and_the_object_in_the_middle() -> None:
    image = _image(RED, CYAN, 3, 4, CUBE, 7)
    sky, wall, floor, thing = image[:, 4, 5], image[:, 25, 5], image[:, 58, 5], image[:, 46, 32]
    assert sky.tolist() == [153, 226, 249]
    assert wall.tolist() == [0, 255, 255]
    assert floor[0] > 220
    assert floor[1:].tolist() == [0, 0]
    assert thing.argmax() == 1


@pytest.mark.parametrize(("factor", "index"), [(0, FLOOR), (1, WALL), (2, OBJECT)])
def test_a_hue_changes_the_colour_of_its_own_part_only(factor: int, index: int) -> None:
    factors = [2, 6, 9, 4, SPHERE, 3]
    other = factors.copy()
    other[factor] = (factors[factor] + 4) % 10
    changed = (_image(*factors) != _image(*other)).any(0)
    part = _maps(index)[4, SPHERE, 3] > 1
    assert part.any()
    assert (changed == part).float().mean() > 0.99
    assert not (changed & (_maps(index)[4, SPHERE, 3] == 0)).any()


def test_every_value_of_every_factor_gives_another_image() -> None:
    data = Shapes3D()
    for column, size in enumerate(data.factor_sizes):
        factors = np.tile([1, 4, 7, 3, CUBE, 5], (size, 1))
        factors[:, column] = np.arange(size)
        assert len(data.images(factors).flatten(1).unique(dim=0)) == size


def test_every_object_is_within_the_frame() -> None:
    objects = _maps(OBJECT)
    border = torch.ones(64, 64, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    assert not objects[..., border].any()
    assert ((objects > 0).sum((-1, -2)) > 100).all()


def test_objects_grow_with_scale() -> None:
    area = (_maps(OBJECT) > 0).sum((-1, -2))
    assert (area.diff(dim=0) > 0).all()


def test_opposite_orientations_show_mirrored_silhouettes() -> None:
    for index in (OBJECT, SKY):
        maps = _maps(index).float() / 255
        assert (maps.flip(2).flip(4) > 0.5).eq(maps > 0.5).float().mean() > 0.999


def test_orientations_bring_another_corner_of_the_room_into_view() -> None:
    wall = _maps(WALL)[0, CUBE, :, 24].float() / 255
    left, middle, right = wall[-1], wall[7], wall[0]
    assert left[2] < 0.85 < left[-3]
    assert right[-3] < 0.65 < right[2]
    assert middle[2] == middle[-3] == 1


def test_every_object_casts_a_shadow_on_the_floor() -> None:
    floor, wall, thing, sky = (_maps(index) for index in (FLOOR, WALL, OBJECT, SKY))
    shadow = (floor > 0) & (floor < 255 * 0.4) & (wall == 0) & (thing == 0) & (sky == 0)
    assert (shadow.sum((-1, -2)) > 3).all()


def test_highlights_lie_on_objects() -> None:
    highlight, thing = _maps(HIGHLIGHT), _maps(OBJECT)
    assert not highlight[thing == 0].any()
    assert (highlight[:, SPHERE].amax((-1, -2)) > 60).all()


def test_no_pixel_stays_unpainted() -> None:
    assert (coefficient_maps(64).max(1) > 0).all()


def test_smaller_images_are_average_pools() -> None:
    factors = Shapes3D().sample_factors(50, torch.Generator().manual_seed(1))
    large, small = (Shapes3D(size).images(factors).float() for size in (64, 32))
    difference = (torch.nn.functional.avg_pool2d(large, 2) - small).abs()
    # More only on highlights, which are cut off at white after pooling instead of before.
    assert (difference > 3 * LEVEL).float().mean() < 0.001
    assert difference.max() < 30 * LEVEL


@pytest.mark.slow
def test_larger_images_show_the_same_scene_in_more_detail() -> None:
    factors = Shapes3D().sample_factors(50, torch.Generator().manual_seed(2))
    large, small = (Shapes3D(size).images(factors).float() for size in (128, 64))
    assert large.shape == (50, 3, 128, 128)
    pooled = torch.nn.functional.avg_pool2d(large, 2)
    assert (pooled - small).abs().mean() < LEVEL
    assert (large - small.repeat_interleave(2, 2).repeat_interleave(2, 3)).abs().mean() > LEVEL


def test_an_image_does_not_depend_on_its_batch() -> None:
    data = Shapes3D(32)
    factors = data.sample_factors(40, torch.Generator().manual_seed(3))
    together = data.images(factors).int()
    alone = torch.cat([data.images(row[None]) for row in factors]).int()
    assert (together - alone).abs().max() <= LEVEL


def test_no_images_are_rendered_for_no_factors() -> None:
    assert Shapes3D(32).images(np.zeros((0, 6), int)).shape == (0, 3, 32, 32)


def test_the_table_of_geometries_is_made_once_and_kept_from_writers() -> None:
    assert coefficient_maps(64) is coefficient_maps(64)
    assert not coefficient_maps(64).flags.writeable
    assert coefficient_maps(64).shape == (480, NUM_MAPS, 64, 64)


def test_an_unknown_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="at 16, 32, 64, 128, 256 pixels, got 48"):
        Shapes3D(48)
