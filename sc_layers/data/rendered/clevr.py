"""CLEVR with one object, rendered: a solid somewhere on a grey floor, with four exact factors of variation.

After CLEVR-Simple of Peebles et al. (2020), which has the object's colour, shape and location: shapes and colours are
those of CLEVR (Johnson et al., 2017), the place is on a grid.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..base import Pixels, RenderedDataset
from .pooling import average_pool
from .shading import as_bytes, column, mix, shade, unit
from .solids import Floats, Solid, cube, cylinder, sphere

# Grey, red, blue, green, brown, purple, cyan and yellow.
COLOURS = np.array(
    [
        (87, 87, 87),
        (173, 35, 35),
        (42, 75, 215),
        (29, 105, 20),
        (129, 74, 25),
        (129, 38, 192),
        (41, 208, 208),
        (255, 238, 51),
    ],
    np.float32,
)
FLOOR_AND_HIGHLIGHT = np.array([(0.58, 0.57, 0.56), (1.0, 1.0, 1.0)], np.float32)
SOLIDS = (cube(1.0), cylinder(0.51, 1.02), sphere(0.57))
NUM_PLACES = 20
PLACES = tuple(np.linspace(-1.45, 1.45, NUM_PLACES).tolist())  # in sides of the cube, to the right and away
RESOLUTIONS = (16, 32, 64, 128)

# Lengths in sides of the cube; the camera looks at the origin.
CAMERA_DISTANCE = 8.2
CAMERA_PITCH = 32.0  # degrees down
FOCAL_LENGTH = 1.41  # of an image plane of height 1
LIGHT = (-0.5, -0.4, 1.0)  # direction towards it
FLOOR_FALLOFF = 0.04  # per unit of length from below the light
FLOOR_IN_SHADOW = 0.45

FLOOR, OBJECT, HIGHLIGHT = range(3)
NUM_MAPS = 3
SUPERSAMPLING = 3
MIN_CAST = 32  # smaller images are average pools of this size


class _Floor:
    """The empty floor as the camera sees it: the rays of all subpixels, and where they meet it.

    Args:
        size: subpixels in a row and in a column.
    """

    def __init__(self, size: int) -> None:
        pitch = math.radians(CAMERA_PITCH)
        sin, cos = math.sin(pitch), math.cos(pitch)
        self.eye = column(0.0, -cos * CAMERA_DISTANCE, sin * CAMERA_DISTANCE)
        self.light = unit(column(*LIGHT))
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        up, right = (grid.ravel() for grid in np.meshgrid(0.5 - centres, centres - 0.5, indexing="ij"))
        self.rays = unit(np.stack([right, sin * up + cos * FOCAL_LENGTH, cos * up - sin * FOCAL_LENGTH]))
        # The camera looks down so steeply that every ray meets the floor.
        self.points = self.eye - self.rays * (self.eye[2] / self.rays[2])
        x, y = self.points[:2] - column(*LIGHT)[:2]
        self.brightness = 1 - FLOOR_FALLOFF * np.hypot(x, y)

    def with_solid(self, solid: Solid, right: float, away: float) -> Floats:
        """Coefficient maps [3, size * size] of the floor with a solid on it."""
        place = column(right, away, 0.0)
        maps = np.zeros((NUM_MAPS, self.rays.shape[1]), np.float32)
        maps[FLOOR] = self.brightness
        points = self.points - place
        near = np.flatnonzero(solid.may_hit(points, self.light))
        maps[FLOOR, near[np.isfinite(solid.entry(points[:, near], self.light))]] *= FLOOR_IN_SHADOW
        eye = self.eye - place
        pixels = np.flatnonzero(solid.may_hit(eye, self.rays))
        distance = solid.entry(eye, self.rays[:, pixels])
        pixels, distance = pixels[np.isfinite(distance)], distance[np.isfinite(distance)]
        rays = self.rays[:, pixels]
        maps[:, pixels] = 0
        normals = solid.normal(eye + rays * distance)
        maps[OBJECT, pixels], maps[HIGHLIGHT, pixels] = shade(rays, normals, self.light)
        return maps


@functools.lru_cache(maxsize=4)
def coefficient_maps(resolution: int) -> Pixels:
    """Ray-cast all geometries, three maps each: how much of floor, object and white a pixel shows.

    Args:
        resolution: one of `RESOLUTIONS`.

    Returns:
        uint8 [1200, 3, R, R], 255 for 1; shape is slowest, then the place to the right, then that away from the camera.
        It is kept and shared, and cannot be written to.
    """
    if resolution < MIN_CAST:
        table: Pixels = average_pool(coefficient_maps(MIN_CAST), MIN_CAST // resolution).round().astype(np.uint8)
    else:
        size = resolution * SUPERSAMPLING
        floor = _Floor(size)
        table = np.empty((len(SOLIDS), NUM_PLACES, NUM_PLACES, NUM_MAPS, resolution, resolution), np.uint8)
        for shape, right, away in np.ndindex(table.shape[:3]):
            maps = floor.with_solid(SOLIDS[shape], PLACES[right], PLACES[away])
            table[shape, right, away] = as_bytes(average_pool(maps.reshape(NUM_MAPS, size, size), SUPERSAMPLING))
        table = table.reshape(-1, NUM_MAPS, resolution, resolution)
    table.flags.writeable = False
    return table


class Clevr(RenderedDataset):
    """One object of CLEVR: colour, shape and place on the floor in all 9,600 combinations.

    Args:
        resolution: height and width of the images in pixels, one of `RESOLUTIONS`.

    Raises:
        ValueError: another resolution.
    """

    factor_names = ("color", "shape", "position_x", "position_y")
    factor_sizes = (len(COLOURS), len(SOLIDS), NUM_PLACES, NUM_PLACES)
    num_channels = 3
    name = "clevr"

    def __init__(self, resolution: int = 64) -> None:
        if resolution not in RESOLUTIONS:
            raise ValueError(f"clevr is rendered at {', '.join(map(str, RESOLUTIONS))} pixels, got {resolution}")
        self.resolution = resolution

    def images(self, factors: npt.ArrayLike) -> Tensor:
        color, shape, right, away = self._checked_factors(factors).T
        geometries = (shape * NUM_PLACES + right) * NUM_PLACES + away
        floor, highlight = np.broadcast_to(FLOOR_AND_HIGHLIGHT[:, None], (2, len(color), 3))
        colours = np.stack([floor, COLOURS[color] / 255, highlight], axis=2)
        return mix(colours, coefficient_maps(self.resolution), geometries)
