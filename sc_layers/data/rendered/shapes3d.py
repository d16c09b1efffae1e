"""3D Shapes, rendered: a solid in a room, with six exact factors of variation.

The layout follows the data set of Burgess and Kim (2018): a camera looks at a solid in the middle of a square room
open to the sky, and turns around it. Colour enters a picture linearly, so only the 480 geometries are ray-cast, each
into five coefficient maps, and an image is the product of these maps with a small matrix of colours.
"""

from __future__ import annotations

import colorsys
import functools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..base import IntArray, Pixels, RenderedDataset
from .pooling import average_pool
from .shading import as_bytes, column, mix, shade, unit
from .solids import Flags, Floats, Solid, capsule, cube, cylinder, sphere

NUM_HUES = 10
SCALES = tuple(np.linspace(0.75, 1.25, 8).tolist())
SOLIDS = (cube(1.0), cylinder(0.51, 1.02), sphere(0.57), capsule(0.44, 1.77))
ORIENTATIONS = tuple(np.linspace(-30.0, 30.0, 15).tolist())  # degrees
RESOLUTIONS = (16, 32, 64, 128, 256)

# Lengths in sides of a cube of scale 1; x to the right, y ahead and z up for the camera at orientation 0.
CAMERA_DISTANCE = 4.46
CAMERA_HEIGHT = 1.06
FOCAL_LENGTH = 1.41  # of an image plane of height 1: a field of view of 39 degrees
HORIZON = 0.487  # where the eye level lies, as a fraction of the image's height from above
BACK_WALL_DISTANCE, SIDE_WALL_DISTANCE = 5.47, 5.1
WALL_HEIGHT = 2.56

LIGHT = (-0.24, 0.2, 1.0)  # direction towards it
LIT_SPOT = (-1.6, -2.0)  # where the floor is brightest
FLOOR_FALLOFF = 0.035  # per unit of length from there
FLOOR_IN_SHADOW = 0.33
BACK_WALL, LEFT_WALL, RIGHT_WALL = 1.0, 0.8, 0.6

HUES = np.array([colorsys.hsv_to_rgb(hue / NUM_HUES, 1.0, 1.0) for hue in range(NUM_HUES)], np.float32)
HIGHLIGHT_AND_SKY = np.array([(1.0, 1.0, 1.0), (0.6, 0.886, 0.976)], np.float32)

FLOOR, WALL, OBJECT, HIGHLIGHT, SKY = range(5)
NUM_MAPS = 5
SUPERSAMPLING = 3
MIN_CAST = 64  # smaller images are average pools of this size


class _Room:
    """The room seen from one orientation: the rays of all subpixels, and what they show of it.

    Args:
        orientation: angle of the camera around the object, in degrees.
        size: subpixels in a row and in a column.
    """

    def __init__(self, orientation: float, size: int) -> None:
        angle = math.radians(orientation)
        sin, cos = math.sin(angle), math.cos(angle)
        self.eye = column(sin * CAMERA_DISTANCE, -cos * CAMERA_DISTANCE, CAMERA_HEIGHT)
        self.light = unit(column(*LIGHT))
        centres = (np.arange(size, dtype=np.float32) + 0.5) / size
        up, right = (grid.ravel() for grid in np.meshgrid(HORIZON - centres, centres - 0.5, indexing="ij"))
        x, y = cos * right - sin * FOCAL_LENGTH, sin * right + cos * FOCAL_LENGTH
        self.rays = unit(np.stack([x, y, up]))
        self.empty = np.zeros((NUM_MAPS, size * size), np.float32)
        self._paint_walls_and_sky()

    def _paint_walls_and_sky(self) -> None:
        (x, y, z), (u, v, w) = self.eye, self.rays
        with np.errstate(divide="ignore", invalid="ignore"):
            to_side = (np.sign(u) * SIDE_WALL_DISTANCE - x) / u
            to_back = (np.sign(v) * BACK_WALL_DISTANCE - y) / v
            to_floor = np.where(w < 0, -z / w, np.inf)
        to_wall = np.fmin(to_side, to_back)
        on_floor = to_floor < to_wall
        on_wall = ~on_floor & (z + to_wall * w < WALL_HEIGHT)
        side = np.where(u > 0, RIGHT_WALL, LEFT_WALL)
        self.empty[WALL] = on_wall * np.where(to_wall == to_back, BACK_WALL, side)
        self.empty[SKY] = ~on_floor & ~on_wall
        self._paint_floor(on_floor, to_floor[on_floor])

    def _paint_floor(self, on_floor: Flags, distance: Floats) -> None:
        self.floor_pixels = np.flatnonzero(on_floor)
        self.floor_points = self.eye + self.rays[:, on_floor] * distance
        x, y = self.floor_points[:2] - column(*LIT_SPOT)
        self.empty[FLOOR, on_floor] = 1 - FLOOR_FALLOFF * np.hypot(x, y)

    def with_solid(self, solid: Solid, scale: float) -> Floats:
        """Coefficient maps [5, size * size] of the room with a solid in it."""
        maps: Floats = self.empty.copy()
        maps[FLOOR, self._shadow(solid, scale)] *= FLOOR_IN_SHADOW
        eye = self.eye / np.float32(scale)
        pixels = np.flatnonzero(solid.may_hit(eye, self.rays))
        distance = solid.entry(eye, self.rays[:, pixels])
        hit = np.isfinite(distance)
        pixels, distance = pixels[hit], distance[hit]
        rays = self.rays[:, pixels]
        maps[:, pixels] = 0
        maps[OBJECT, pixels], maps[HIGHLIGHT, pixels] = shade(rays, solid.normal(eye + rays * distance), self.light)
        return maps

    def _shadow(self, solid: Solid, scale: float) -> IntArray:
        """Indices of the pixels of the floor that the solid keeps the light from."""
        points = self.floor_points / np.float32(scale)
        near = np.flatnonzero(solid.may_hit(points, self.light))
        hidden = np.isfinite(solid.entry(points[:, near], self.light))
        pixels: IntArray = self.floor_pixels[near[hidden]]
        return pixels


def _cast(orientation: float, resolution: int) -> Iterator[Floats]:
    """Coefficient maps [5, R, R] of every scale and shape, the shape fastest, seen from one orientation."""
    size = resolution * SUPERSAMPLING
    room = _Room(orientation, size)
    for scale in SCALES:
        for solid in SOLIDS:
            yield average_pool(room.with_solid(solid, scale).reshape(NUM_MAPS, size, size), SUPERSAMPLING)


def _cast_all(resolution: int) -> Pixels:
    table = np.empty((len(SCALES) * len(SOLIDS), len(ORIENTATIONS), NUM_MAPS, resolution, resolution), np.uint8)
    for place, orientation in enumerate(ORIENTATIONS):
        for row, maps in enumerate(_cast(orientation, resolution)):
            table[row, place] = as_bytes(maps)
    return table.reshape(-1, NUM_MAPS, resolution, resolution)


@functools.lru_cache(maxsize=4)
def coefficient_maps(resolution: int) -> Pixels:
    """Ray-cast all geometries, five maps each: how much of floor, wall, object, white and sky a pixel shows.

    NumPy here and in `images`, since it works in one thread: training keeps the others busy.

    Args:
        resolution: one of `RESOLUTIONS`.

    Returns:
        uint8 [480, 5, R, R], 255 for 1; scale is slowest, then shape, then orientation. It is kept and shared, and
        cannot be written to.
    """
    if resolution < MIN_CAST:
        table: Pixels = average_pool(coefficient_maps(MIN_CAST), MIN_CAST // resolution).round().astype(np.uint8)
    else:
        table = _cast_all(resolution)
    table.flags.writeable = False
    return table


class Shapes3D(RenderedDataset):
    """3D Shapes: floor, wall and object hue, scale, shape and orientation in all 480,000 combinations.

    Differs from the original in being smooth at edges and free of its faint wall texture.

    Args:
        resolution: height and width of the images in pixels, one of `RESOLUTIONS`; the original has 64.

    Raises:
        ValueError: another resolution.
    """

    factor_names = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
    factor_sizes = (NUM_HUES, NUM_HUES, NUM_HUES, len(SCALES), len(SOLIDS), len(ORIENTATIONS))
    num_channels = 3
    name = "shapes3d"

    def __init__(self, resolution: int = 64) -> None:
        if resolution not in RESOLUTIONS:
            raise ValueError(f"shapes3d is rendered at {', '.join(map(str, RESOLUTIONS))} pixels, got {resolution}")
        self.resolution = resolution

    def images(self, factors: npt.ArrayLike) -> Tensor:
        checked = self._checked_factors(factors)
        scale, shape, orientation = checked[:, 3:].T
        geometries = (scale * len(SOLIDS) + shape) * len(ORIENTATIONS) + orientation
        fixed = np.broadcast_to(HIGHLIGHT_AND_SKY, (len(checked), *HIGHLIGHT_AND_SKY.shape))
        colours = np.concatenate([HUES[checked[:, :3]], fixed], axis=1).transpose(0, 2, 1)
        return mix(colours, coefficient_maps(self.resolution), geometries)
