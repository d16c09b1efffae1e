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
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .base import RenderedDataset
from .solids import Solid, capsule, cube, cylinder, sphere

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
# Of the object: everywhere, for a lamp beside the camera, for the light.
AMBIENT, HEADLIGHT, LIGHT_STRENGTH = 0.47, 0.45, 0.37
HIGHLIGHT_STRENGTH, SHININESS = 0.4, 16

HUES = torch.tensor([colorsys.hsv_to_rgb(hue / NUM_HUES, 1.0, 1.0) for hue in range(NUM_HUES)])
HIGHLIGHT_AND_SKY = torch.tensor([(1.0, 1.0, 1.0), (0.6, 0.886, 0.976)])

FLOOR, WALL, OBJECT, HIGHLIGHT, SKY = range(5)
NUM_MAPS = 5
SUPERSAMPLING = 3
MIN_CAST = 64  # smaller images are average pools of this size
CHUNK = 16  # images put together at a time, so that their maps stay in the cache


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products [P] of vectors [3, P] with [3, P] or [3, 1]."""
    product: Tensor = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def _unit(vectors: Tensor) -> Tensor:
    length: Tensor = vectors.norm(dim=0)
    return vectors / length


class _Room:
    """The room seen from one orientation: the rays of all subpixels, and what they show of it.

    Args:
        orientation: angle of the camera around the object, in degrees.
        size: subpixels in a row and in a column.
    """

    def __init__(self, orientation: float, size: int) -> None:
        angle = math.radians(orientation)
        sin, cos = math.sin(angle), math.cos(angle)
        self.eye = torch.tensor([sin * CAMERA_DISTANCE, -cos * CAMERA_DISTANCE, CAMERA_HEIGHT])[:, None]
        self.light = _unit(torch.tensor(LIGHT))[:, None]
        centres = (torch.arange(size) + 0.5) / size
        down, right = torch.meshgrid(centres, centres - 0.5, indexing="ij")
        right, up, ahead = right.flatten(), HORIZON - down.flatten(), torch.full((size * size,), FOCAL_LENGTH)
        self.rays = _unit(torch.stack([cos * right - sin * ahead, sin * right + cos * ahead, up]))
        self.empty = torch.zeros(NUM_MAPS, size * size)
        self._paint_walls_and_sky()

    def _paint_walls_and_sky(self) -> None:
        (x, y, z), (u, v, w) = self.eye, self.rays
        to_side = (u.sign() * SIDE_WALL_DISTANCE - x) / u
        to_back = (v.sign() * BACK_WALL_DISTANCE - y) / v
        to_wall = torch.minimum(to_side, to_back)
        to_floor = torch.where(w < 0, -z / w, torch.inf)
        on_floor = to_floor < to_wall
        on_wall = ~on_floor & (z + to_wall * w < WALL_HEIGHT)
        side = torch.where(u > 0, RIGHT_WALL, LEFT_WALL)
        self.empty[WALL] = on_wall * torch.where(to_back < to_side, BACK_WALL, side)
        self.empty[SKY] = (~on_floor & ~on_wall).float()
        self.floor_pixels = on_floor.nonzero().squeeze(1)
        self._paint_floor(to_floor[self.floor_pixels])

    def _paint_floor(self, distance: Tensor) -> None:
        self.floor_points = self.eye + self.rays[:, self.floor_pixels] * distance
        from_spot = self.floor_points[:2] - torch.tensor(LIT_SPOT)[:, None]
        self.empty[FLOOR, self.floor_pixels] = 1 - FLOOR_FALLOFF * from_spot.norm(dim=0)

    def with_solid(self, solid: Solid, scale: float) -> Tensor:
        """Coefficient maps [5, size * size] of the room with a solid in it."""
        maps = self.empty.clone()
        maps[FLOOR, self._shadow(solid, scale)] *= FLOOR_IN_SHADOW
        eye = self.eye / scale
        pixels = solid.may_hit(eye, self.rays).nonzero().squeeze(1)
        distance = solid.entry(eye, self.rays[:, pixels])
        hit = distance.isfinite()
        pixels, distance = pixels[hit], distance[hit]
        rays = self.rays[:, pixels]
        maps[:, pixels] = 0
        maps[OBJECT, pixels], maps[HIGHLIGHT, pixels] = self._shade(rays, solid.normal(eye + rays * distance))
        return maps

    def _shadow(self, solid: Solid, scale: float) -> Tensor:
        """Indices of the pixels of the floor that the solid keeps the light from."""
        points = self.floor_points / scale
        near = solid.may_hit(points, self.light).nonzero().squeeze(1)
        hidden = solid.entry(points[:, near], self.light).isfinite()
        return self.floor_pixels[near[hidden]]

    def _shade(self, rays: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
        """Diffuse colour and white highlight (Blinn and Phong) of a surface, both [P]."""
        facing = -_dot(rays, normals).clamp_max(0)
        lit = _dot(normals, self.light).clamp_min(0)
        diffuse = AMBIENT + HEADLIGHT * facing + LIGHT_STRENGTH * lit
        half_way = _unit(self.light - rays)
        return diffuse, HIGHLIGHT_STRENGTH * _dot(normals, half_way).clamp_min(0) ** SHININESS


def _cast(orientation: float, resolution: int) -> Iterator[Tensor]:
    """Coefficient maps [5, R, R] of every scale and shape, the shape fastest, seen from one orientation."""
    size = resolution * SUPERSAMPLING
    room = _Room(orientation, size)
    for scale in SCALES:
        for solid in SOLIDS:
            maps = room.with_solid(solid, scale).view(1, NUM_MAPS, size, size)
            yield avg_pool2d(maps, SUPERSAMPLING)[0]


@functools.lru_cache(maxsize=4)
def coefficient_maps(resolution: int) -> Tensor:
    """Ray-cast all geometries, five maps each: how much of floor, wall, object, white and sky a pixel shows.

    Args:
        resolution: one of `RESOLUTIONS`.

    Returns:
        uint8 [480, 5, R, R], 255 for 1; scale is slowest, then shape, then orientation. It is kept and shared: do not
        write to it.
    """
    if resolution < MIN_CAST:
        return avg_pool2d(coefficient_maps(MIN_CAST).float(), MIN_CAST // resolution).round().byte()
    shape = (len(SCALES) * len(SOLIDS), len(ORIENTATIONS), NUM_MAPS, resolution, resolution)
    table = torch.empty(shape, dtype=torch.uint8)
    for column, orientation in enumerate(ORIENTATIONS):
        for row, maps in enumerate(_cast(orientation, resolution)):
            table[row, column] = (maps.clamp(0, 1) * 255).round()
    return table.flatten(0, 1)


class Shapes3D(RenderedDataset):
    """3D Shapes: floor, wall and object hue, scale, shape and orientation in all 480,000 combinations.

    Differs from the original in being smooth at edges and free of its faint wall texture.

    Args:
        resolution: of the images, one of `RESOLUTIONS`; the original has 64.

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
        checked = torch.from_numpy(self._checked_factors(factors))
        scale, shape, orientation = checked[:, 3:].unbind(1)
        geometries = (scale * len(SOLIDS) + shape) * len(ORIENTATIONS) + orientation
        colours = torch.cat([HUES[checked[:, :3]], HIGHLIGHT_AND_SKY.expand(len(checked), -1, -1)], dim=1)
        maps = coefficient_maps(self.resolution).flatten(2)
        images = torch.empty(len(checked), 3, maps.shape[2], dtype=torch.uint8)
        for start in range(0, len(checked), CHUNK):
            part = slice(start, start + CHUNK)
            levels = colours[part].mT @ maps[geometries[part]].float()
            images[part] = levels.add_(0.5).clamp_(0, 255)
        return images.view(-1, 3, self.resolution, self.resolution)
