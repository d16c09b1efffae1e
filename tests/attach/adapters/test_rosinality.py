"""Generators that are their own synthesis network, and truncate by themselves."""

from __future__ import annotations

import pytest
import torch

from sc_layers.attach import (
    attach_spatial_constriction,
    codes_of,
    masks_of,
    traverse,
)
from tests.attach.samples import K
from tests.integrations.toys import (
    W_DIM,
    RosinalityLikeGenerator,
    rosinality_images,
)
from tests.tolerances import ROUNDING

SIZE = 16


def attached(init: str = "random") -> RosinalityLikeGenerator:
    generator = RosinalityLikeGenerator().eval()
    return attach_spatial_constriction(generator, K, [8, 16], init=init)


def test_identity_init_keeps_the_images_of_mixed_and_truncated_styles() -> None:
    generator = RosinalityLikeGenerator().eval()
    z = [torch.randn(2, W_DIM), torch.randn(2, W_DIM)]
    options = {"truncation": 0.5, "truncation_latent": generator.mean_latent(8).detach(), "inject_index": 3}
    before = rosinality_images(generator, *z, **options)
    attach_spatial_constriction(generator, K, [8, 16])
    wide = [torch.cat([part, torch.randn(2, K)], 1) for part in z]
    assert torch.equal(rosinality_images(generator, *wide, **options), before)


@pytest.mark.parametrize("centre_width", [W_DIM, W_DIM + K])
def test_codes_are_never_truncated(centre_width: int) -> None:
    generator = attached()
    z = torch.randn(2, W_DIM + K)
    centre = torch.randn(1, centre_width)
    _, latents = generator([z], truncation=0.5, truncation_latent=centre, return_latents=True)
    assert torch.allclose(codes_of(generator, latents), z[:, W_DIM:], **ROUNDING)
    per_layer = generator.style(z)[:, None].repeat(1, 6, 1)
    _, latents = generator(
        [per_layer], truncation=0.5, truncation_latent=centre, return_latents=True, input_is_latent=True
    )
    assert torch.allclose(codes_of(generator, latents), z[:, W_DIM:], **ROUNDING)


def test_returned_latents_hold_the_codes_and_make_the_same_images() -> None:
    generator = attached()
    z = torch.randn(2, W_DIM + K)
    made, latents = generator([z], randomize_noise=False, return_latents=True)
    assert torch.equal(rosinality_images(generator, latents, input_is_latent=True), made)
    (gradient,) = torch.autograd.grad(made.sum(), latents)
    assert gradient[..., :W_DIM].abs().max() > 0


def test_narrow_z_and_w_stand_for_codes_zero() -> None:
    generator = attached()
    z = torch.cat([torch.randn(2, W_DIM), torch.zeros(2, K)], 1)
    narrow = z[:, :W_DIM].contiguous()
    assert torch.equal(rosinality_images(generator, narrow), rosinality_images(generator, z))
    w = generator.style(z)
    narrow_w = w[:, :W_DIM].contiguous()
    centre = torch.randn(1, W_DIM)
    options = {"input_is_latent": True, "truncation": 0.5, "truncation_latent": centre}
    torch.testing.assert_close(
        rosinality_images(generator, narrow_w, **options), rosinality_images(generator, w, **options)
    )


def test_masks_and_traversals_work() -> None:
    generator = attached()
    z = torch.randn(1, W_DIM + K)
    _, latents = generator([z], return_latents=True)
    assert masks_of(generator, latents).shape == (1, K, SIZE, SIZE)
    row = traverse(generator, z, points=2, bound=1.0, dims=[2])
    z[:, W_DIM + 2] = 1.0
    torch.testing.assert_close(row[0, 1], rosinality_images(generator, z)[0])
    assert not torch.allclose(traverse(generator, z, points=2, truncation_psi=0.5), traverse(generator, z, points=2))
