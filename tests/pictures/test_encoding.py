"""Images given back by codes and noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sc_layers.metrics.distances import make_distance
from sc_layers.models.modules import NoiseConv
from sc_layers.pictures.encoding import encode_images
from tests.networks import NUM_CODES, small_networks


@pytest.fixture
def generator() -> Any:
    made = small_networks()["G_ema"]
    for module in made.modules():
        if isinstance(module, NoiseConv):
            module.noise_strength.data.fill_(0.3)
    return made.eval().requires_grad_(False)


def test_an_image_of_the_generator_is_found_again(generator: Any) -> None:
    codes = torch.tensor([[0.5, -1.0, 0.3], [-0.7, 0.2, 1.1]])
    images = generator(codes, noise_mode="const")
    found = encode_images(generator, None, images.clamp(-1, 1), make_distance("mse"), steps=150)
    assert (found.read_error > 2 * found.refined_error).all()
    noisy = torch.func.functional_call(generator, found.noise, (found.codes,), {"noise_mode": "const"})
    assert torch.equal(noisy, found.refined)


def test_refining_starts_at_what_the_recogniser_reads(generator: Any) -> None:
    read = torch.tensor([[0.5, -1.0, 0.3]])
    images = generator(read, noise_mode="const").clamp(-1, 1)
    found = encode_images(generator, lambda _: read, images, make_distance("mse"), steps=0)
    assert torch.equal(found.codes, read)
    assert found.read_error < 1


def test_refining_never_ends_worse_and_noise_stays_noise(generator: Any) -> None:
    torch.manual_seed(1)
    images = torch.rand(3, 1, 32, 32) * 2 - 1
    found = encode_images(generator, lambda x: torch.randn(len(x), NUM_CODES), images, make_distance("mse"), steps=20)
    assert (found.refined_error <= found.read_error).all()
    assert found.noise
    for maps in found.noise.values():
        assert maps.shape[:2] == (3, 1)
        assert maps.mean((2, 3)).abs().max() < 0.2
        assert (maps.std((2, 3)) - 1).abs().max() < 0.2


def test_images_of_another_size_are_refused(generator: Any) -> None:
    with pytest.raises(ValueError, match=r"the network makes images \(1, 32, 32\), got \(3, 16, 16\)"):
        encode_images(generator, None, torch.zeros(1, 3, 16, 16), make_distance("mse"))
