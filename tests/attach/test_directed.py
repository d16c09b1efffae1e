"""Directions of generators of every kind, and generators of the coordinates along them."""

from __future__ import annotations

import pytest
import torch

from sc_layers.attach import AttachedSampler, DirectedGenerator, find_directions
from tests.attach.samples import SPACES, space_of


@pytest.mark.parametrize("method", ["sefa", "ganspace"])
@pytest.mark.parametrize("kind", SPACES)
@torch.no_grad()
def test_the_picture_of_a_seed_is_that_of_its_coordinates_and_moves_with_each(kind: str, method: str) -> None:
    space = space_of(kind)
    directions = find_directions(space, method, 3, samples=50)
    view, codes = DirectedGenerator(space, directions).at_seed(5, 0.7)
    assert codes.shape == (1, 3)
    image = space.to_images(space.to_w(space.z_of_seed(5), 0.7))
    torch.testing.assert_close(view(codes), image, rtol=1e-4, atol=1e-4)
    for code in range(3):
        moved = view(codes + torch.eye(3)[code : code + 1])
        assert (moved - image).abs().max() > 1e-3
    _, masks = view(codes, return_masks=True)
    assert masks.shape == (1, 0, *image.shape[2:])


@torch.no_grad()
def test_codes_are_standard_deviations_of_w() -> None:
    space = space_of("ada")
    for method in ("sefa", "ganspace"):
        directions = find_directions(space, method, 3, samples=4000)
        z = torch.randn(4000, 5, generator=torch.Generator().manual_seed(1))
        codes = directions.coordinates(space.to_w(z)[:, 0])
        torch.testing.assert_close(codes.std(0), torch.ones(3), rtol=0.05, atol=0)
        torch.testing.assert_close(codes.mean(0), torch.zeros(3), rtol=0, atol=0.1)


@torch.no_grad()
def test_rows_of_w_that_are_not_named_stay() -> None:
    space = space_of("rosinality")
    directions = find_directions(space, "sefa", 2, rows=[4, 5], samples=50)
    view, codes = DirectedGenerator(space, directions).at_seed(0)
    seen = []
    handle = space.generator.convs[1].register_forward_hook(lambda module, args, output: seen.append(output))
    view(codes)
    view(codes + 3)
    handle.remove()
    torch.testing.assert_close(*seen)
    with pytest.raises(ValueError, match="w has rows 0 to 5, got 6"):
        find_directions(space, "sefa", 2, rows=[6], samples=50)


def test_constriction_has_the_codes_themselves_as_directions() -> None:
    space = space_of("ours")
    with torch.no_grad():
        for index, size in enumerate((1.0, 5.0)):
            space.generator.synthesis.layers[2].style_weight[index] *= size
        space.generator.synthesis.layers[4].style.weight.mul_(0.1)
    directions = find_directions(space, "sefa", 2, samples=50)
    assert (directions.steps != 0).nonzero().tolist() == [[0, 1], [1, 0]]


def test_all_that_is_drawn_gives_the_generators_own_pictures() -> None:
    for kind in ("ours", "attached ada"):
        space = space_of(kind)
        view = DirectedGenerator(space, find_directions(space, "sefa", 2, samples=20))
        sampler = AttachedSampler(view)
        z = torch.randn(2, sampler.num_codes)
        expected = space.generator(z, None, noise_mode="const")
        assert torch.equal(sampler(z, noise_mode="const"), expected)


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method must be one of sefa, ganspace, got 'pca'"):
        find_directions(space_of("ada"), "pca", 2)
