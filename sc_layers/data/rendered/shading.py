"""Vectors, light on surfaces, and images as products of coefficient maps and colours: what ray-cast sets share."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..base import IntArray, Pixels
from .solids import Floats

# Of an object: everywhere, for a lamp beside the camera, for the light.
AMBIENT, HEADLIGHT, LIGHT_STRENGTH = 0.47, 0.45, 0.37
HIGHLIGHT_STRENGTH, SHININESS = 0.4, 16
CHUNK = 8  # images put together at a time, so that their maps stay in the cache


def column(*vector: float) -> Floats:
    """A vector as [3, 1]."""
    return np.array(vector, np.float32).reshape(-1, 1)


def dot(a: Floats, b: Floats) -> Floats:
    """Inner products [P] of vectors `a` [3, P] with `b` [3, P] or [3, 1]."""
    product: Floats = a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
    return product


def unit(vectors: Floats) -> Floats:
    """Vectors of the directions of `vectors` [3, P] and of length 1."""
    length: Floats = np.sqrt(dot(vectors, vectors))
    return vectors / length


def shade(rays: Floats, normals: Floats, light: Floats) -> tuple[Floats, Floats]:
    """Diffuse colour and white highlight (Blinn and Phong) of a surface, both [P].

    Args:
        rays: unit directions [3, P] from the camera.
        normals: outward unit normals [3, P].
        light: unit direction [3, 1] towards the light.
    """
    facing: Floats = np.maximum(-dot(rays, normals), 0)
    lit: Floats = np.maximum(dot(normals, light), 0)
    diffuse: Floats = AMBIENT + HEADLIGHT * facing + LIGHT_STRENGTH * lit
    half_way = unit(light - rays)
    glancing: Floats = np.maximum(dot(normals, half_way), 0)
    highlight: Floats = HIGHLIGHT_STRENGTH * glancing**SHININESS
    return diffuse, highlight


def as_bytes(maps: Floats) -> Pixels:
    """Coefficient maps as bytes, 255 for 1."""
    rounded: Pixels = (maps.clip(0, 1) * 255).round().astype(np.uint8)
    return rounded


def mix(colours: npt.NDArray[np.float32], maps: Pixels, geometries: IntArray) -> Tensor:
    """Images uint8 [B, 3, R, R]: the sum of the maps of each image's geometry, each in a colour.

    Args:
        colours: [B, 3, M], 0 to 1, of each map.
        maps: coefficient maps [G, M, R, R], 255 for 1.
        geometries: which of them an image shows, [B].
    """
    resolution = maps.shape[-1]
    flat = maps.reshape(*maps.shape[:2], -1)
    images = np.empty((len(colours), 3, flat.shape[2]), np.uint8)
    for start in range(0, len(colours), CHUNK):
        part = slice(start, start + CHUNK)
        levels = colours[part] @ flat[geometries[part]].astype(np.float32)
        levels += 0.5
        np.minimum(levels, 255, out=images[part], casting="unsafe")
    return torch.from_numpy(images).view(-1, 3, resolution, resolution)
