"""Directions of generators of every kind, and generators of the coordinates along them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sc_layers.attach import AttachedSampler, DirectedGenerator, Space, attach_spatial_constriction, find_directions
from sc_layers.models import Generator, GeneratorConfig
from tests.integrations import toys


def _space(kind: str) -> Space:
    torch.manual_seed(0)
    if kind == "ours":
        modules = "[Const-8, ResConv-up-1, C_spgroup-2-2, ResConv-up-1, C_global-4]"
        config = GeneratorConfig(module_list=modules, resolution=16, fmap_base=8, fmap_min=8, fmap_max=8)
        return Space(Generator(config).eval(), latents="uniform")
    makers = {
        "ada": toys.AdaLikeGenerator,
        "stylegan3": toys.MarginGenerator,
        "rosinality": toys.RosinalityLikeGenerator,
    }
    generator = makers[kind.removeprefix("attached ")]().eval()
    return Space(attach_spatial_constriction(generator, 2, [8], init="random") if "attached" in kind else generator)


KINDS = ("ours", "ada", "stylegan3", "rosinality", "attached ada", "attached rosinality")


@pytest.mark.parametrize("method", ["sefa", "ganspace"])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_the_picture_of_a_seed_is_that_of_its_coordinates_and_moves_with_each(kind: str, method: str) -> None:
    space = _space(kind)
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
    space = _space("ada")
    for method in ("sefa", "ganspace"):
        directions = find_directions(space, method, 3, samples=4000)
        z = torch.randn(4000, 5, generator=torch.Generator().manual_seed(1))
        codes = directions.coordinates(space.to_w(z)[:, 0])
        torch.testing.assert_close(codes.std(0), torch.ones(3), rtol=0.05, atol=0)
        torch.testing.assert_close(codes.mean(0), torch.zeros(3), rtol=0, atol=0.1)


@torch.no_grad()
def test_rows_of_w_that_are_not_named_stay() -> None:
    space = _space("rosinality")
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
    space = _space("ours")
    with torch.no_grad():
        for index, size in enumerate((1.0, 5.0)):
            space.generator.synthesis.layers[2].style_weight[index] *= size
        space.generator.synthesis.layers[4].style.weight.mul_(0.1)
    directions = find_directions(space, "sefa", 2, samples=50)
    assert (directions.steps != 0).nonzero().tolist() == [[0, 1], [1, 0]]


def test_all_that_is_drawn_gives_the_generators_own_pictures() -> None:
    for kind in ("ours", "attached ada"):
        space = _space(kind)
        view = DirectedGenerator(space, find_directions(space, "sefa", 2, samples=20))
        sampler = AttachedSampler(view)
        z = torch.randn(2, sampler.num_codes)
        expected = space.generator(z, None, noise_mode="const")
        assert torch.equal(sampler(z, noise_mode="const"), expected)


def test_a_generator_of_no_known_kind_and_an_unknown_method_are_refused() -> None:
    unknown = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="no generator of a known code base"):
        find_directions(Space(unknown), "sefa", 2, samples=4)
    with pytest.raises(ValueError, match="method must be one of sefa, ganspace, got 'pca'"):
        find_directions(_space("ada"), "pca", 2)
