"""Generators of blocks, skip or residual."""

from __future__ import annotations

import pytest
import torch

from sc_layers.attach import (
    attach_spatial_constriction,
)
from tests.attach.samples import K, run, wide_z
from tests.integrations.toys import (
    AdaLikeGenerator,
)


def test_residual_blocks_are_constricted_as_a_whole_but_not_the_last() -> None:
    generator = AdaLikeGenerator(architecture="resnet").eval()
    z = torch.randn(2, 7)
    before = run(generator, z[:, :5].contiguous())
    attach_spatial_constriction(generator, 2, [16])
    assert torch.equal(run(generator, z), before)
    assert hasattr(generator.synthesis.b16, "constriction")
    with pytest.raises(ValueError, match="no resolution 32 can be constricted here; there are 4, 8, 16"):
        attach_spatial_constriction(AdaLikeGenerator(architecture="resnet"), 2, [32])


def test_classes_pass_through() -> None:
    generator = AdaLikeGenerator(c_dim=3).eval()
    z, c = wide_z(), torch.eye(3)[:2]
    before = generator(z[:, :5].contiguous(), c, noise_mode="const")
    attach_spatial_constriction(generator, K, [8, 16])
    assert torch.equal(generator(z, c, noise_mode="const"), before)
