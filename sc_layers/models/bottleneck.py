"""The representation encoder of IB-GAN: a stochastic layer between the random input and the codes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..functional import without_autocast
from .modules import LinearLayer

_WIDTH = 32  # of the hidden layers, as in the authors' program


class CodeDistribution(NamedTuple):
    """Normal distributions of codes, each code by itself."""

    mean: Tensor  # [N, K]
    log_var: Tensor  # [N, K]

    def sample(self) -> Tensor:
        """Codes [N, K], through which gradients flow."""
        return self.mean + (0.5 * self.log_var).exp() * torch.randn_like(self.mean)


class RepresentationEncoder(nn.Module):
    """How a random input is coded (e of IB-GAN): z [N, Z] -> the distribution of K codes.

    Args:
        z_dim: Z.
        num_codes: K.

    >>> RepresentationEncoder(z_dim=16, num_codes=10)(torch.randn(2, 16)).sample().shape
    torch.Size([2, 10])

    Source: Jeon et al., IB-GAN (2021), and its authors' program; layers are scaled as all others here.
    """

    def __init__(self, z_dim: int, num_codes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            LinearLayer(z_dim, _WIDTH, activate=True),
            LinearLayer(_WIDTH, _WIDTH, activate=True),
            LinearLayer(_WIDTH, 2 * num_codes),
        )

    def forward(self, z: Tensor) -> CodeDistribution:
        """The distribution of codes of each row of z [N, Z]."""
        with without_autocast(z.device.type):
            mean, log_var = self.layers(z).chunk(2, dim=1)
        return CodeDistribution(mean, log_var)
