"""Spatial constriction attached to another program's generator survives the way through its checkpoints."""

from __future__ import annotations

import io

import pytest
import torch

from sc_layers import attach_spatial_constriction, load_network
from sc_layers.attach import attachment_of
from sc_layers.checkpoints.errors import CheckpointError
from tests.checkpoints import samples
from tests.integrations import toys


@pytest.fixture
def generator() -> toys.AdaLikeGenerator:
    generator = toys.AdaLikeGenerator(resolution=16).eval().requires_grad_(False)
    return attach_spatial_constriction(generator, 5, resolutions=[8, 16], init="random")


def test_the_record_tells_what_was_attached(generator: toys.AdaLikeGenerator) -> None:
    record = load_network(io.BytesIO(samples.pickled({"G_ema": generator})))["G_ema"]
    assert record.class_name == "AdaLikeGenerator"
    assert record.kwargs == {"resolution": 16, "c_dim": 0, "architecture": "skip"}
    assert record.attachment == attachment_of(generator).arguments()
    assert set(record.state) == set(generator.state_dict())


def test_the_rebuilt_generator_has_it_attached(generator: toys.AdaLikeGenerator) -> None:
    rebuilt = load_network(io.BytesIO(samples.pickled({"G_ema": generator})), classes=toys)["G_ema"]
    z = torch.randn(2, generator.z_dim)
    assert torch.equal(rebuilt(z, noise_mode="const"), generator(z, noise_mode="const"))
    assert attachment_of(rebuilt).arguments() == attachment_of(generator).arguments()


def test_it_survives_our_formats_too(generator: toys.AdaLikeGenerator) -> None:
    record = load_network(io.BytesIO(samples.pickled({"G_ema": generator})))["G_ema"]
    for write in (samples.write_safetensors, samples.write_pt):
        rebuilt = load_network(io.BytesIO(write({"G_ema": record}, {})), classes=toys)["G_ema"]
        z = torch.randn(1, generator.z_dim)
        assert torch.equal(rebuilt(z, noise_mode="const"), generator(z, noise_mode="const"))


def test_a_generator_of_rosinality_comes_back_with_it() -> None:
    class Generator(toys.RosinalityLikeGenerator):
        def __init__(self, size: int, style_dim: int, n_mlp: int, channel_multiplier: int) -> None:
            super().__init__()

    generator = Generator(16, 16, 1, 2).eval().requires_grad_(False)
    attach_spatial_constriction(generator, 3, resolutions=[4, 8], init="random")
    content = {"g_ema": generator.state_dict()}
    z = torch.randn(2, 16 + 3)
    for extra in ({}, {"sc": attachment_of(generator).arguments()}):
        data = samples.saved(content | extra)
        rebuilt = load_network(io.BytesIO(data), classes={"Generator": Generator})["G_ema"]
        assert torch.equal(rebuilt([z], randomize_noise=False)[0], generator([z], randomize_noise=False)[0])


def test_more_codes_than_anything_has_are_refused(generator: toys.AdaLikeGenerator) -> None:
    generator._init_kwargs["spatial_constriction"]["num_codes"] = 10**9
    with pytest.raises(CheckpointError, match="1000000000 codes"):
        load_network(io.BytesIO(samples.pickled({"G_ema": generator})), classes=toys)
