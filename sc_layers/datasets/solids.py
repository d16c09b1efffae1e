"""Convex solids that stand on the floor at the origin, and where rays meet them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Solid:
    """A convex solid of scale 1, standing on the plane z = 0 with its axis on x = y = 0.

    Rays are given as origins and directions [3, P], or [3, 1] where all rays share one; the components are x, y, z.

    Attributes:
        name: what a person calls it.
        height: of its highest point.
        bounding_radius: of a ball around (0, 0, height / 2) that contains it.
        entry: origins, directions -> distance [P] at which a ray enters, in units of the direction's length;
            infinite for a ray that misses. Rays start outside.
        normal: points [3, P] on the surface -> outward unit normals [3, P].
    """

    name: str
    height: float
    bounding_radius: float
    entry: Callable[[Tensor, Tensor], Tensor]
    normal: Callable[[Tensor], Tensor]

    def may_hit(self, origins: Tensor, directions: Tensor) -> Tensor:
        """Which rays [P] with unit directions pass through the bounding ball: a cheap test before `entry`."""
        x, y, z = origins
        u, v, w = directions
        to_centre = self.height / 2 - z
        along = to_centre * w - x * u - y * v
        distance_squared: Tensor = x * x + y * y + to_centre * to_centre - along * along
        return distance_squared.lt(self.bounding_radius**2)


def _slab(origin: Tensor, direction: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Distances at which a ray enters and leaves `low <= coordinate <= high`."""
    near, far = (low - origin) / direction, (high - origin) / direction
    return torch.minimum(near, far), torch.maximum(near, far)


def _quadric(a: Tensor, half_b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Roots of `a t^2 + 2 half_b t + c` with a > 0, smaller first; an empty interval where there are none."""
    discriminant = half_b * half_b - a * c
    root = discriminant.clamp_min(0).sqrt()
    missed = discriminant < 0
    return ((-half_b - root) / a).masked_fill(missed, torch.inf), ((-half_b + root) / a).masked_fill(missed, -torch.inf)


def _entry_of_intersection(*intervals: tuple[Tensor, Tensor]) -> Tensor:
    """First distance that lies in all intervals (enter, leave); infinite where they have no point in common."""
    enter, leave = intervals[0]
    for other_enter, other_leave in intervals[1:]:
        enter, leave = torch.maximum(enter, other_enter), torch.minimum(leave, other_leave)
    return enter.masked_fill((enter > leave) | (leave < 0), torch.inf)


def _ball(origins: Tensor, directions: Tensor, height: float, radius: float) -> tuple[Tensor, Tensor]:
    x, y, z = origins
    u, v, w = directions
    z = z - height
    return _quadric(u * u + v * v + w * w, x * u + y * v + z * w, x * x + y * y + z * z - radius**2)


def _tube(origins: Tensor, directions: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    x, y, _ = origins
    u, v, _ = directions
    return _quadric((u * u + v * v).clamp_min(1e-12), x * u + y * v, x * x + y * y - radius**2)


def cube(side: float) -> Solid:
    """A cube whose sides are parallel to the axes."""
    half = side / 2

    def entry(origins: Tensor, directions: Tensor) -> Tensor:
        x, y, z = origins
        u, v, w = directions
        return _entry_of_intersection(_slab(x, u, -half, half), _slab(y, v, -half, half), _slab(z, w, 0.0, side))

    def normal(points: Tensor) -> Tensor:
        centred = points - points.new_tensor([0.0, 0.0, half])[:, None]
        face = torch.nn.functional.one_hot(centred.abs().argmax(0), 3).T
        return face * centred.sign()

    return Solid("cube", side, 3**0.5 * half, entry, normal)


def cylinder(radius: float, height: float) -> Solid:
    """An upright cylinder with flat ends."""

    def entry(origins: Tensor, directions: Tensor) -> Tensor:
        return _entry_of_intersection(_tube(origins, directions, radius), _slab(origins[2], directions[2], 0.0, height))

    def normal(points: Tensor) -> Tensor:
        x, y, z = points
        end = (z - height / 2).abs() - height / 2 > torch.hypot(x, y) - radius
        on_end = torch.stack([torch.zeros_like(x), torch.zeros_like(y), (z - height / 2).sign()])
        return torch.where(end, on_end, torch.stack([x / radius, y / radius, torch.zeros_like(z)]))

    return Solid("cylinder", height, (radius**2 + height**2 / 4) ** 0.5, entry, normal)


def sphere(radius: float) -> Solid:
    """A ball that touches the floor."""

    def entry(origins: Tensor, directions: Tensor) -> Tensor:
        return _entry_of_intersection(_ball(origins, directions, radius, radius))

    def normal(points: Tensor) -> Tensor:
        return (points - points.new_tensor([0.0, 0.0, radius])[:, None]) / radius

    return Solid("sphere", 2 * radius, radius, entry, normal)


def capsule(radius: float, height: float) -> Solid:
    """An upright cylinder with half a ball at either end; `height` includes them."""
    low, high = radius, height - radius

    def entry(origins: Tensor, directions: Tensor) -> Tensor:
        body = _entry_of_intersection(_tube(origins, directions, radius), _slab(origins[2], directions[2], low, high))
        lower = _entry_of_intersection(_ball(origins, directions, low, radius))
        upper = _entry_of_intersection(_ball(origins, directions, high, radius))
        return torch.minimum(body, torch.minimum(lower, upper))

    def normal(points: Tensor) -> Tensor:
        x, y, z = points
        return torch.stack([x, y, z - z.clamp(low, high)]) / radius

    return Solid("capsule", height, height / 2, entry, normal)
