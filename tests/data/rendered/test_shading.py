from __future__ import annotations

import numpy as np
import pytest

from sc_layers.data.rendered.shading import AMBIENT, HEADLIGHT, LIGHT_STRENGTH, as_bytes, column, mix, shade, unit
from tests.tolerances import ROUNDING


def test_a_surface_is_brightest_towards_camera_and_light() -> None:
    ray, light = column(0, 1, 0), column(0, -1, 0)
    normals = unit(np.float32([[0, 0, 1], [-1, 1, 0], [0, 0, 0]]))
    diffuse, highlight = shade(ray, normals, light)
    np.testing.assert_allclose(diffuse, [AMBIENT + HEADLIGHT + LIGHT_STRENGTH, AMBIENT, AMBIENT], rtol=ROUNDING["rtol"])
    assert highlight[0] > 0
    assert highlight[1] == 0


@pytest.mark.parametrize(("value", "byte"), [(-1.0, 0), (0.5, 128), (1.0, 255), (2.0, 255)])
def test_coefficients_are_clipped_to_bytes(value: float, byte: int) -> None:
    assert as_bytes(np.float32([value])).tolist() == [byte]


def test_images_are_sums_of_maps_in_their_colours() -> None:
    maps = np.zeros((2, 2, 4, 4), np.uint8)
    maps[1, 0, :2], maps[1, 1, 1:] = 255, 51
    colours = np.float32([[[1, 0.5], [0, 1], [0.2, 1]]])
    image = mix(colours, maps, np.array([1]))[0].numpy()
    assert image[:, 0, 0].tolist() == [255, 0, 51]
    assert image[:, 1, 0].tolist() == [255, 51, 102]  # red is full: it does not wrap around
    assert image[:, 3, 0].tolist() == [26, 51, 51]
