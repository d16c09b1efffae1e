"""What an attached generator shows: masks, sweeps, and itself as a generator of codes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from sc_layers.attach import (
    AttachedGenerator,
    attach_spatial_constriction,
    images_and_masks,
    masks_of,
    traverse,
)
from tests.attach.samples import K, attached, run, wide_z
from tests.integrations.toys import (
    MarginGenerator,
)


def test_masks_are_those_of_the_thread_that_asks() -> None:
    generator = attached()
    ws = [generator.mapping(wide_z(), None) for _ in range(8)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [masks_of(generator, w) for w in ws]
        assert all(map(torch.equal, pool.map(lambda w: masks_of(generator, w), ws), expected))


def test_masks_have_the_size_of_the_image_and_depend_on_the_weights() -> None:
    generator = attached()
    images, masks = images_and_masks(generator, generator.mapping(wide_z(), None))
    assert masks.shape == (2, K, *images.shape[2:])
    (gradient,) = torch.autograd.grad(masks.sum(), generator.synthesis.b8.conv1.constriction.gate_weight_h)
    assert gradient.abs().max() > 0


def test_masks_of_layers_with_a_margin_are_cropped_to_the_picture() -> None:
    generator = attach_spatial_constriction(MarginGenerator().eval(), 2, [8], init="random")
    layer = generator.synthesis.L1_12_6.constriction
    features = []
    layer.register_forward_hook(lambda module, args, output: features.append(args[0]))
    masks = masks_of(generator, generator.mapping(torch.randn(1, 7), None))
    expected = nn.functional.interpolate(layer.masks(features[0])[..., 2:-2, 2:-2], (16, 16), mode="bilinear")
    assert torch.equal(masks, expected)


def test_traverse_moves_only_the_swept_code() -> None:
    generator = attached()
    z = wide_z(1)
    images = traverse(generator, z, points=3, bound=2.0, dims=[0, 3])
    assert images.shape == (2, 3, 3, 32, 32)
    z[:, 5 + 3] = 2
    torch.testing.assert_close(images[1, 2], run(generator, z)[0])


def test_an_attached_generator_looks_like_a_generator_of_codes() -> None:
    view = AttachedGenerator(attached(), z=torch.randn(1, 5))
    codes = torch.randn(3, K)
    images, masks = view(codes, noise_mode="const", return_masks=True)
    assert torch.equal(view(codes), images)
    assert masks.shape == (3, K, 32, 32)
    assert (view.num_codes, view.masked_codes) == (K, [0, 1, 2, 3])
