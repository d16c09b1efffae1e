"""Where the layers of an attached generator start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sc_layers.attach import attach_spatial_constriction, constriction_layers, masks_of
from sc_layers.attach.calibration import LOGITS_SPREAD
from sc_layers.functional import gate_logits
from tests.tolerances import SAME_FORMULA, SAMPLED

K = 2


class Drawing(nn.Module):
    """A generator whose features are the same planes for every z, but for noise."""

    def __init__(self, scale: float, noise: float = 0.0) -> None:
        super().__init__()
        self.start = nn.Linear(5, 6)
        planes = torch.randn(6, 8, 8, generator=torch.Generator().manual_seed(1)) + torch.arange(6.0)[:, None, None]
        self.register_buffer("planes", scale * planes)
        self.noise = noise
        self.body, self.end = nn.Identity(), nn.Conv2d(6, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        features = self.body(self.planes + 0 * self.start(z)[:, :, None, None])
        return self.end(features + self.noise * torch.randn_like(features))


def attached(generator: nn.Module, num_codes: int = K) -> nn.Module:
    torch.manual_seed(0)
    return attach_spatial_constriction(generator.eval(), num_codes, layers=["body"], z_dim=5)


def test_a_code_of_zero_stands_for_a_plane_of_typical_mean_and_contrast() -> None:
    generator = attached(Drawing(scale=3.0))
    (layer,) = constriction_layers(generator)
    scale, bias = layer.styles(torch.zeros(1, K))
    std, mean = torch.std_mean(generator.planes, dim=(1, 2), correction=0)
    torch.testing.assert_close(scale, std.expand(1, K, -1), **SAME_FORMULA[torch.float32])
    torch.testing.assert_close(bias, mean.expand(1, K, -1), **SAME_FORMULA[torch.float32])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_masks_start_alike_whatever_the_size_of_the_features(scale: float) -> None:
    z = torch.randn(1, 5 + K)
    masks = [attached(Drawing(scale)) for scale in (1.0, scale)]
    for generator in masks:
        nn.init.ones_(constriction_layers(generator)[0].mask_gain)
    expected, actual = (masks_of(generator, z) for generator in masks)
    torch.testing.assert_close(actual, expected, **SAME_FORMULA[torch.float32])


def test_logits_of_the_gates_start_at_the_spread_at_which_masks_have_edges() -> None:
    generator = attached(Drawing(scale=0.01), num_codes=32)
    (layer,) = constriction_layers(generator)
    means = generator.planes.mean((1, 2))[None]
    logits = [gate_logits(means, weight) for weight in (layer.gate_weight_h, layer.gate_weight_w)]
    assert torch.cat(logits, dim=-1).std().item() == pytest.approx(LOGITS_SPREAD, rel=SAMPLED)


def test_looking_at_features_leaves_random_numbers_and_modes_as_they_were() -> None:
    drawn = []
    for init in ("random", "identity"):
        torch.manual_seed(0)
        generator = attach_spatial_constriction(Drawing(1.0, noise=1.0).train(), K, layers=["body"], z_dim=5, init=init)
        drawn.append(torch.randn(3))
        assert all(module.training for module in generator.modules())
    assert torch.equal(*drawn)


def test_dead_features_leave_the_start_finite() -> None:
    generator = attached(Drawing(scale=0.0))
    assert all(parameter.isfinite().all() for parameter in generator.parameters())
