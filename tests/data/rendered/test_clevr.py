from __future__ import annotations

import numpy as np
import pytest

from sc_layers.data import Clevr
from sc_layers.data.rendered.clevr import COLOURS, FLOOR, HIGHLIGHT, OBJECT, coefficient_maps
from tests.tolerances import LEVEL

DATA = Clevr(32)
GRID = (3, 20, 20)


def _centres() -> np.ndarray:
    """Row and column [2, 3, 20, 20] of the middle of the object in every geometry, in pixels."""
    cover = coefficient_maps(32)[:, OBJECT] / 255
    rows, columns = np.indices((32, 32))
    area = cover.sum((1, 2))
    return np.stack([(cover * rows).sum((1, 2)) / area, (cover * columns).sum((1, 2)) / area]).reshape(2, *GRID)


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_images_are_rgb_bytes(resolution: int) -> None:
    images = Clevr(resolution).images([[0, 0, 0, 0], [7, 2, 19, 19]])
    assert images.shape == (2, 3, resolution, resolution)


def test_there_are_as_many_images_as_combinations() -> None:
    assert len(DATA) == 8 * 3 * 20 * 20


def test_places_move_the_object_to_the_right_and_away() -> None:
    rows, columns = _centres()
    assert (np.diff(columns, axis=1) > 0.2).all()
    assert (np.diff(rows, axis=2) < 0).all()


def test_the_whole_object_is_in_the_picture() -> None:
    cover = coefficient_maps(32)[:, OBJECT]
    border = np.ones((32, 32), bool)
    border[1:-1, 1:-1] = False
    assert not cover[:, border].any()


def test_objects_away_from_the_camera_are_smaller() -> None:
    area = (coefficient_maps(32)[:, OBJECT] / 255).sum((1, 2)).reshape(GRID)
    assert (area[:, :, 0] > 1.3 * area[:, :, -1]).all()


def test_the_colour_shows_on_the_object_and_nowhere_else() -> None:
    images = DATA.images([[color, 2, 10, 10] for color in range(8)]).numpy().astype(int)
    maps = coefficient_maps(32)[(2 * 20 + 10) * 20 + 10].astype(int)
    elsewhere = maps[OBJECT] == 0
    assert (images[:, :, elsewhere] == images[:1, :, elsewhere]).all()
    flat = (maps[OBJECT] > 0) & (maps[HIGHLIGHT] == 0) & (maps[FLOOR] == 0)
    expected = COLOURS[:, :, None] * maps[OBJECT, flat] / 255
    np.testing.assert_allclose(images[:, :, flat], expected, atol=LEVEL)


def test_a_shadow_lies_beside_the_object() -> None:
    maps = coefficient_maps(32)[(2 * 20 + 10) * 20 + 10]
    _, column = (mean.mean() for mean in np.nonzero(maps[OBJECT] > 127))
    dark = (maps[FLOOR] > 0) & (maps[FLOOR] < 128) & (maps[OBJECT] == 0)
    assert dark.any()
    assert np.nonzero(dark)[1].mean() > column


def test_another_resolution_is_refused() -> None:
    with pytest.raises(ValueError, match="clevr is rendered at 16, 32, 64, 128 pixels, got 48"):
        Clevr(48)
