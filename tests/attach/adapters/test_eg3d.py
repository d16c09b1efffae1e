"""A generator whose synthesis network draws planes, and whose upsampling network reads the same w."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sc_layers.attach import (
    attach_spatial_constriction,
    attachment_of,
    codes_of,
    detach_spatial_constriction,
    masks_of,
)
from tests.attach.samples import K, images_move
from tests.integrations.toys import (
    W_DIM,
    AdaLikeGenerator,
    Upsampler,
)


class TriPlaneLike(nn.Module):
    """Conventions of eg3d: a backbone that draws planes, and an upsampling network that reads the same w."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = AdaLikeGenerator(c_dim=2)
        self.z_dim, self.c_dim, self.w_dim = 5, 2, W_DIM
        self.renderer, self.superresolution = nn.Identity(), Upsampler()

    def mapping(self, z: Tensor, c: Tensor, truncation_psi: float = 1) -> Tensor:
        return self.backbone.mapping(z, c, truncation_psi=truncation_psi)

    def synthesis(self, ws: Tensor, c: Tensor, noise_mode: str = "const") -> dict[str, Tensor]:
        planes = self.renderer(self.backbone.synthesis(ws, noise_mode=noise_mode)) * c.sum(1)[:, None, None, None]
        return {"image": self.superresolution(planes, planes.repeat(1, 2, 1, 1), ws)}

    def forward(self, z: Tensor, c: Tensor) -> dict[str, Tensor]:
        return self.synthesis(self.mapping(z, c), c)


def test_eg3d_is_attached_as_a_whole_and_its_upsampler_goes_on_reading_w() -> None:
    generator = TriPlaneLike().eval()
    z, c = torch.randn(2, 5), torch.tensor([[1.0, 0.5]]).expand(2, -1)
    before = generator(z, c)["image"]
    attach_spatial_constriction(generator, K, [8, 16])
    wide = torch.cat([z, torch.randn(2, K)], 1)
    assert torch.equal(generator(wide, c)["image"], before)
    ws = generator.mapping(wide, c)
    assert torch.equal(codes_of(generator, ws), wide[:, 5:])
    narrow = generator.synthesis(ws[..., :W_DIM].contiguous(), c)["image"]
    assert torch.equal(narrow, before)
    assert masks_of(generator, ws, c).shape == (2, K, *before.shape[2:])
    with pytest.raises(ValueError, match="needs a camera"):
        masks_of(generator, ws)
    detach_spatial_constriction(generator)
    assert torch.equal(generator(z, c)["image"], before)
    attach_spatial_constriction(generator, K, [8, 16], init="random")
    assert attachment_of(generator).modules == ("backbone.synthesis.b8.conv1", "backbone.synthesis.b16.conv1")
    assert images_move(lambda z: generator(z, c)["image"], wide, K) == [True] * K
