"""The representation encoder of IB-GAN, alone and in a recogniser."""

from __future__ import annotations

import pytest
import torch

from sc_layers.models import Recognizer, RecognizerConfig
from sc_layers.models.bottleneck import CodeDistribution, RepresentationEncoder


def test_codes_are_drawn_from_the_distribution_and_let_gradients_through() -> None:
    mean, log_var = torch.tensor([[-3.0, 0.0, 2.0]]), torch.tensor([[0.0, -2.0, 1.0]])
    codes = CodeDistribution(mean.expand(20_000, -1), log_var.expand(20_000, -1)).sample()
    torch.testing.assert_close(codes.mean(0), mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(codes.var(0), log_var[0].exp(), rtol=0.1, atol=0)
    encoder = RepresentationEncoder(z_dim=6, num_codes=3)
    encoder(torch.randn(4, 6)).sample().square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in encoder.parameters())


def test_the_recognizer_reads_the_input_and_tells_the_mean_code() -> None:
    shape = {"resolution": 8, "num_channels": 1, "fmap_min": 3, "fmap_max": 3, "minibatch_std": False}
    Q = Recognizer(RecognizerConfig(num_codes=4, z_dim=6, **shape))
    images = torch.randn(5, 1, 8, 8)
    z = Q.read_input(images)
    assert z.shape == (5, 6)
    assert torch.equal(Q(images), Q.encoder(z).mean)
    without = Recognizer(RecognizerConfig(num_codes=4, **shape))
    assert torch.equal(without(images), without.read_input(images))
    with pytest.raises(ValueError, match="z_dim must be at least 1 or None, got 0"):
        RecognizerConfig(num_codes=4, z_dim=0, **shape)
