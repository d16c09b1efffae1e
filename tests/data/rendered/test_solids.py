from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sc_layers.data.rendered.solids import Solid, capsule, cube, cylinder, sphere

SURFACE = 1e-4  # float32, at distances of a few units


def _to_cube(points: Tensor) -> Tensor:
    return (points - points.new_tensor([0, 0, 0.6])[:, None]).abs().amax(0) - 0.6


def _to_cylinder(points: Tensor) -> Tensor:
    x, y, z = points
    return torch.maximum(torch.hypot(x, y) - 0.5, (z - 0.7).abs() - 0.7)


def _to_sphere(points: Tensor) -> Tensor:
    return (points - points.new_tensor([0, 0, 0.8])[:, None]).norm(dim=0) - 0.8


def _to_capsule(points: Tensor) -> Tensor:
    x, y, z = points
    return torch.stack([x, y, z - z.clamp(0.4, 1.6)]).norm(dim=0) - 0.4


# Each solid with a function that is negative inside, zero on the surface and positive outside.
SOLIDS = [
    pytest.param(cube(1.2), _to_cube, id="cube"),
    pytest.param(cylinder(0.5, 1.4), _to_cylinder, id="cylinder"),
    pytest.param(sphere(0.8), _to_sphere, id="sphere"),
    pytest.param(capsule(0.4, 2.0), _to_capsule, id="capsule"),
]
over_solids = pytest.mark.parametrize(("solid", "signed"), SOLIDS)
Signed = Callable[[Tensor], Tensor]


def _entry(solid: Solid, origins: Tensor, directions: Tensor) -> Tensor:
    return torch.from_numpy(solid.entry(origins.numpy(), directions.numpy()))


def _rays(count: int = 4000) -> tuple[Tensor, Tensor]:
    """Unit rays from all around towards the neighbourhood of the solids; about half of them hit."""
    origins = torch.randn(3, count)
    origins = 4 * origins / origins.norm(dim=0)
    targets = 0.9 * torch.randn(3, count) + torch.tensor([0, 0, 0.7])[:, None]
    directions = targets - origins
    return origins, directions / directions.norm(dim=0)


@over_solids
def test_rays_enter_at_the_surface_from_outside(solid: Solid, signed: Signed) -> None:
    origins, directions = _rays()
    distance = _entry(solid, origins, directions)
    hit = distance.isfinite()
    assert 500 < hit.sum() < 3500
    points = (origins + directions * distance)[:, hit]
    torch.testing.assert_close(signed(points), torch.zeros_like(points[0]), atol=SURFACE, rtol=0)
    assert (signed(points - 0.01 * directions[:, hit]) > 0).all()


@over_solids
def test_rays_that_miss_stay_outside(solid: Solid, signed: Signed) -> None:
    origins, directions = _rays()
    missed = _entry(solid, origins, directions).isinf()
    for distance in torch.linspace(0, 8, 400):
        assert (signed(origins[:, missed] + directions[:, missed] * distance) > -SURFACE).all()


@over_solids
def test_rays_that_point_away_miss(solid: Solid, signed: Signed) -> None:
    origins, directions = _rays()
    hit = _entry(solid, origins, directions).isfinite()
    assert _entry(solid, origins[:, hit], -directions[:, hit]).isinf().all()


@over_solids
def test_normals_are_the_gradient_of_the_distance(solid: Solid, signed: Signed) -> None:
    origins, directions = _rays()
    distance = _entry(solid, origins, directions)
    hit = distance.isfinite()
    points = (origins + directions * distance)[:, hit].requires_grad_()
    (gradient,) = torch.autograd.grad(signed(points).sum(), points)
    same = (torch.from_numpy(solid.normal(points.detach().numpy())) - gradient).norm(dim=0) < 1e-3
    # On an edge, where two faces meet, either normal will do.
    assert same.float().mean() > 0.999


@over_solids
def test_every_ray_that_hits_may_hit(solid: Solid, signed: Signed) -> None:
    origins, directions = _rays()
    hit = _entry(solid, origins, directions).isfinite()
    may_hit = torch.from_numpy(solid.may_hit(origins.numpy(), directions.numpy()))
    assert may_hit[hit].all()
    assert not may_hit.all()


@over_solids
def test_a_solid_stands_on_the_floor_with_its_height(solid: Solid, signed: Signed) -> None:
    above, below = torch.tensor([[0.0], [0.0], [5.0]]), torch.tensor([[0.0], [0.0], [-5.0]])
    up = torch.tensor([[0.0], [0.0], [1.0]])
    torch.testing.assert_close(_entry(solid, above, -up), torch.tensor([5 - solid.height]))
    torch.testing.assert_close(_entry(solid, below, up), torch.tensor([5.0]))
