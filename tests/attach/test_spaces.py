"""z, w and images of generators of every kind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sc_layers.attach import ForeignSpace
from tests.attach.samples import SPACES, space_of


@pytest.mark.parametrize("kind", SPACES)
@torch.no_grad()
def test_the_way_over_w_gives_the_pictures_of_the_generator(kind: str) -> None:
    space = space_of(kind)
    z = space.z_of_seed(5)
    assert z.shape == (1, space.z_width)
    ws = space.to_w(z)
    assert ws.shape[2] >= space.w_width
    pictures = space.to_images(ws)
    generate = space.generator
    expected = (
        generate([z], randomize_noise=False)[0] if "rosinality" in kind else generate(z, None, noise_mode="const")
    )
    assert torch.equal(pictures, expected)


@pytest.mark.parametrize("kind", SPACES)
@torch.no_grad()
def test_w_of_many_is_that_of_each_in_turn(kind: str) -> None:
    space = space_of(kind)
    z = torch.cat([space.z_of_seed(seed) for seed in range(70)])
    torch.testing.assert_close(space.ws_of(z)[66:68], space.to_w(z[66:68]))


@pytest.mark.parametrize("kind", SPACES)
def test_weights_of_styles_read_entries_of_w(kind: str) -> None:
    space = space_of(kind)
    rows = space.to_w(space.z_of_seed(0)).shape[1]
    weights = space.style_weights()
    assert weights
    assert set(weights) <= set(range(rows))
    assert {weight.shape[1] for weight in weights.values()} == {space.w_width}


def test_a_generator_of_no_known_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="no generator of a known code base"):
        ForeignSpace(nn.Sequential(nn.Linear(4, 4)))
