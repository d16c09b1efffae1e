"""Convex solids that stand on the floor at the origin, and where rays meet them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Solid:
    """A convex solid of scale 1, standing on the plane z = 0 with its axis on x = y = 0.

    Rays are given as origins and directions [3, P], or [3, 1] where all rays share one; the components are x, y, z.

    Attributes:
        name: what a person calls it.
        height: z of its highest point.
        bounding_radius: radius of a ball around (0, 0, height / 2) that contains it.
        entry: origins, directions -> distance [P] at which a ray enters, in units of the direction's length;
            infinite for a ray that misses. Rays start outside.
        normal: points [3, P] on the surface -> outward unit normals [3, P].
    """

    name: str
    height: float
    bounding_radius: float
    entry: Callable[[Floats, Floats], Floats]
    normal: Callable[[Floats], Floats]

    def may_hit(self, origins: Floats, directions: Floats) -> Flags:
        """Which rays [P], from origins in unit directions, pass through the bounding ball: a test before `entry`."""
        x, y, z = origins
        u, v, w = directions
        to_centre = self.height / 2 - z
        along = to_centre * w - x * u - y * v
        distance_squared: Floats = x * x + y * y + to_centre * to_centre - along * along
        return distance_squared < self.bounding_radius**2


def _slab(origin: Floats, direction: Floats, low: float, high: float) -> tuple[Floats, Floats]:
    """Distances at which a ray enters and leaves `low <= coordinate <= high`."""
    with np.errstate(divide="ignore"):
        near, far = (low - origin) / direction, (high - origin) / direction
    return np.minimum(near, far), np.maximum(near, far)


def _quadric(a: Floats, half_b: Floats, c: Floats) -> tuple[Floats, Floats]:
    """Roots of `a t^2 + 2 half_b t + c` with a > 0, smaller first; an empty interval where there are none."""
    discriminant = half_b * half_b - a * c
    root = np.sqrt(np.maximum(discriminant, 0))
    real = discriminant >= 0
    return np.where(real, (-half_b - root) / a, np.inf), np.where(real, (-half_b + root) / a, -np.inf)


def _entry_of_intersection(*intervals: tuple[Floats, Floats]) -> Floats:
    """First distance that lies in all intervals (enter, leave); infinite where they have no point in common."""
    enter, leave = intervals[0]
    for other_enter, other_leave in intervals[1:]:
        enter, leave = np.maximum(enter, other_enter), np.minimum(leave, other_leave)
    return np.where((enter <= leave) & (leave >= 0), enter, np.inf)


def _ball(origins: Floats, directions: Floats, height: float, radius: float) -> tuple[Floats, Floats]:
    x, y, z = origins
    u, v, w = directions
    z = z - height
    return _quadric(u * u + v * v + w * w, x * u + y * v + z * w, x * x + y * y + z * z - radius**2)


def _tube(origins: Floats, directions: Floats, radius: float) -> tuple[Floats, Floats]:
    x, y, _ = origins
    u, v, _ = directions
    return _quadric(np.maximum(u * u + v * v, 1e-12), x * u + y * v, x * x + y * y - radius**2)


def _above_floor(points: Floats, height: float | Floats) -> Floats:
    """Points relative to those on the axis at a height."""
    x, y, z = points
    return np.stack([x, y, z - height])


def cube(side: float) -> Solid:
    """A cube with edges of length `side`, parallel to the axes."""
    half = side / 2

    def entry(origins: Floats, directions: Floats) -> Floats:
        x, y, z = origins
        u, v, w = directions
        return _entry_of_intersection(_slab(x, u, -half, half), _slab(y, v, -half, half), _slab(z, w, 0.0, side))

    def normal(points: Floats) -> Floats:
        centred = _above_floor(points, half)
        face = np.eye(3, dtype=np.float32)[:, np.abs(centred).argmax(0)]
        return face * np.sign(centred)

    return Solid("cube", side, 3**0.5 * half, entry, normal)


def cylinder(radius: float, height: float) -> Solid:
    """An upright cylinder of this radius and height, with flat ends."""

    def entry(origins: Floats, directions: Floats) -> Floats:
        return _entry_of_intersection(_tube(origins, directions, radius), _slab(origins[2], directions[2], 0.0, height))

    def normal(points: Floats) -> Floats:
        x, y, z = points
        end = np.abs(z - height / 2) - height / 2 > np.hypot(x, y) - radius
        return np.stack([~end * x / radius, ~end * y / radius, end * np.sign(z - height / 2)])

    return Solid("cylinder", height, (radius**2 + height**2 / 4) ** 0.5, entry, normal)


def sphere(radius: float) -> Solid:
    """A ball of this radius that touches the floor."""

    def entry(origins: Floats, directions: Floats) -> Floats:
        return _entry_of_intersection(_ball(origins, directions, radius, radius))

    def normal(points: Floats) -> Floats:
        return _above_floor(points, radius) / radius

    return Solid("sphere", 2 * radius, radius, entry, normal)


def capsule(radius: float, height: float) -> Solid:
    """An upright cylinder with half a ball of the same radius at either end; `height` includes them."""
    low, high = radius, height - radius

    def entry(origins: Floats, directions: Floats) -> Floats:
        body = _entry_of_intersection(_tube(origins, directions, radius), _slab(origins[2], directions[2], low, high))
        lower = _entry_of_intersection(_ball(origins, directions, low, radius))
        upper = _entry_of_intersection(_ball(origins, directions, high, radius))
        return np.minimum(body, np.minimum(lower, upper))

    def normal(points: Floats) -> Floats:
        return _above_floor(points, points[2].clip(low, high)) / radius

    return Solid("capsule", height, height / 2, entry, normal)
