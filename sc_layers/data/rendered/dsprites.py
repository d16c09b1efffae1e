"""dSprites, rendered: a white sprite on black, with five exact factors of variation.

The factors follow the data set of Matthey, Higgins, Hassabis and Lerchner (2017). Only the 720 sprites are drawn; an
image is a window into the row of all sprites, placed so that the sprite appears where it should.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import RenderedDataset
from .pooling import average_pool

Bitmap = npt.NDArray[np.uint8]
Coordinates = npt.NDArray[np.float64]

SHAPES = ("square", "ellipse", "heart")
SCALES = tuple(np.linspace(0.5, 1.0, 6).tolist())
NUM_ORIENTATIONS = 40
NUM_POSITIONS = 32
RESOLUTIONS = (32, 64, 128)
NATIVE = 64  # positions are one pixel apart here

# In pixels at the native resolution, for scale 1. Turned in any way, a sprite fits a square of half the image's size.
HALF_SIDE = 10.0
LONG_AXIS, SHORT_AXIS = 14.1, 7.05
HEART_SIDE = 13.0


def _square(x: Coordinates, y: Coordinates) -> npt.NDArray[np.bool_]:
    return np.maximum(abs(x), abs(y)) < HALF_SIDE


def _ellipse(x: Coordinates, y: Coordinates) -> npt.NDArray[np.bool_]:
    return (x / LONG_AXIS) ** 2 + (y / SHORT_AXIS) ** 2 < 1


def _heart(x: Coordinates, y: Coordinates) -> npt.NDArray[np.bool_]:
    """A square that stands on a corner, with half a disc on either upper side; the origin is the centre of mass."""
    half = HEART_SIDE / 2
    y = y - HEART_SIDE * 0.2213
    disc = half / math.sqrt(2)
    return (abs(x) + abs(y) < HEART_SIDE / math.sqrt(2)) | (np.hypot(abs(x) - disc, y + disc) < half)


@functools.lru_cache(maxsize=2)
def _windows(resolution: int) -> Bitmap:
    """Every run of `resolution**2` bytes of all sprites laid out one after another, as a view [*, resolution**2].

    A sprite takes the first half of the columns of `resolution / 2` rows, and as many empty rows follow. Starting a
    window `y * resolution + x` bytes before a sprite moves it y down and x to the right, and brings in only zeros.
    """
    half = resolution // 2
    bitmaps = np.zeros((len(SHAPES), len(SCALES), NUM_ORIENTATIONS, resolution, resolution), np.uint8)
    centres = (np.arange(half) + 0.5 - half / 2) * NATIVE / resolution
    y, x = np.meshgrid(centres, centres, indexing="ij")
    for row, inside in enumerate((_square, _ellipse, _heart)):
        for column, scale in enumerate(SCALES):
            for turn in range(NUM_ORIENTATIONS):
                angle = 2 * math.pi * turn / NUM_ORIENTATIONS
                sin, cos = math.sin(angle) / scale, math.cos(angle) / scale
                bitmaps[row, column, turn, :half, :half] = 255 * inside(cos * x - sin * y, sin * x + cos * y)
    lead_in = np.zeros(half * resolution, np.uint8)
    memory = np.concatenate([lead_in, bitmaps.reshape(-1)])
    return np.lib.stride_tricks.sliding_window_view(memory, resolution**2)


class DSprites(RenderedDataset):
    """dSprites: shape, scale, orientation, horizontal and vertical position in all 737,280 combinations.

    Orientation turns counter-clockwise in steps of a fortieth of a full turn (the original repeats its first
    orientation as its last). A square looks the same after a quarter turn, an ellipse after half a turn.

    Args:
        resolution: height and width of the images in pixels: 64 (as the original) or 128, black and white; or 32, the
            2x2 means of 64, with grey edges, since positions are half a pixel apart there.

    Raises:
        ValueError: another resolution.
    """

    factor_names = ("shape", "scale", "orientation", "position_x", "position_y")
    factor_sizes = (len(SHAPES), len(SCALES), NUM_ORIENTATIONS, NUM_POSITIONS, NUM_POSITIONS)
    num_channels = 1
    name = "dsprites"

    def __init__(self, resolution: int = NATIVE) -> None:
        if resolution not in RESOLUTIONS:
            raise ValueError(f"dsprites is rendered at {', '.join(map(str, RESOLUTIONS))} pixels, got {resolution}")
        self.resolution = resolution

    def images(self, factors: npt.ArrayLike) -> Tensor:
        shape, scale, orientation, x, y = self._checked_factors(factors).T
        drawn = max(self.resolution, NATIVE)
        sprite = (shape * len(SCALES) + scale) * NUM_ORIENTATIONS + orientation
        step = drawn // NATIVE
        starts = drawn * drawn // 2 + sprite * drawn * drawn - step * (y * drawn + x)
        images = _windows(drawn)[starts].reshape(-1, 1, drawn, drawn)
        if drawn > self.resolution:
            images = average_pool(images, drawn // self.resolution).round().astype(np.uint8)
        return torch.from_numpy(images)
