"""Discriminator and recogniser: the residual network of StyleGAN2 with one output, or one for each code."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from ..functional import without_autocast
from . import functional
from .bottleneck import RepresentationEncoder
from .config import NetworkConfig
from .modules import ConvLayer, LinearLayer

FINAL_SIZE = 4


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig(NetworkConfig):
    """What a discriminator is made of; the fields of `NetworkConfig` and the following.

    Features of size x size pixels are as wide as stage log2(size) - 1 says, the last hidden layer as stage 0.

    Args:
        minibatch_std: whether the last convolution also sees the standard deviation across groups of 4 samples.
    """

    fmap_base: int = 1024
    minibatch_std: bool = True

    smallest_resolution: ClassVar[int] = 8

    def block_sizes(self) -> tuple[int, ...]:
        """Sizes in pixels that the residual blocks start from: the resolution down to 8."""
        return tuple(2**log for log in range(self.resolution.bit_length() - 1, 2, -1))

    def size_width(self, size: int) -> int:
        """Channels of features of size x size pixels."""
        return self.width(size.bit_length() - 2)


@dataclass(frozen=True, kw_only=True)
class RecognizerConfig(DiscriminatorConfig):
    """What a recogniser is made of; the fields of `DiscriminatorConfig` and the following.

    Args:
        num_codes: outputs K, one for each code.
        z_dim: length of IB-GAN's random input, which is read first; None where there is none.
    """

    num_codes: int
    z_dim: int | None = None
    fmap_base: int = 512

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_codes < 1:
            raise ValueError(f"num_codes must be at least 1, got {self.num_codes}")
        if self.z_dim is not None and self.z_dim < 1:
            raise ValueError(f"z_dim must be at least 1 or None, got {self.z_dim}")


class DownBlock(nn.Module):
    """Residual block that halves the resolution: `(conv_down(conv(x)) + skip(x)) / sqrt(2)`.

    Args:
        in_channels: channels of the features that go in.
        out_channels: channels of those that come out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        gain = math.sqrt(0.5)
        self.conv0 = ConvLayer(in_channels, in_channels)
        self.conv1 = ConvLayer(in_channels, out_channels, resample="down", gain=gain)
        self.skip = ConvLayer(
            in_channels, out_channels, kernel_size=1, resample="down", activate=False, bias=False, gain=gain
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features x [N, in, H, W] at half of their resolution, [N, out, H / 2, W / 2]."""
        y: Tensor = self.conv1(self.conv0(x)) + self.skip(x)
        return y


class ResidualTrunk(nn.Module):
    """Some numbers from every image, by residual blocks that halve the resolution down to 4x4.

    Args:
        config: what the network is made of.
        num_outputs: how many numbers.
    """

    def __init__(self, config: DiscriminatorConfig, num_outputs: int) -> None:
        super().__init__()
        self.config = config
        final = config.size_width(FINAL_SIZE)
        self.from_rgb = ConvLayer(config.num_channels, config.size_width(config.resolution), kernel_size=1)
        self.blocks = nn.ModuleList(
            DownBlock(config.size_width(size), config.size_width(size // 2)) for size in config.block_sizes()
        )
        self.conv = ConvLayer(final + config.minibatch_std, final)
        self.hidden = LinearLayer(final * FINAL_SIZE**2, config.width(0), activate=True)
        self.output = LinearLayer(config.width(0), num_outputs)

    def forward(self, images: Tensor) -> Tensor:
        """The numbers of every image.

        Args:
            images: [N, C, H, W], about in [-1, 1]; with minibatch statistics N must be at most 4 or a multiple of 4.

        Returns:
            [N, num_outputs].

        Raises:
            ValueError: images of another shape, or a batch that `functional.minibatch_std` cannot group.
        """
        expected = (self.config.num_channels, self.config.resolution, self.config.resolution)
        if images.ndim != 4 or tuple(images.shape[1:]) != expected:
            raise ValueError(f"images must have shape (N, {', '.join(map(str, expected))}), got {tuple(images.shape)}")
        x = self.from_rgb(images)
        for block in self.blocks:
            x = block(x)
        if self.config.minibatch_std:
            x = functional.minibatch_std(x)
        features = self.conv(x).flatten(1).to(self.output.weight.dtype)
        # A loss on how two outputs differ would mostly see the rounding of a half-precision product.
        with without_autocast(features.device.type):
            outputs: Tensor = self.output(self.hidden(features))
        return outputs


class Discriminator(ResidualTrunk):
    """How real images look: [N, C, H, W] -> logits [N, 1].

    Args:
        config: what the discriminator is made of.

    >>> discriminator = Discriminator(DiscriminatorConfig(resolution=16))
    >>> discriminator(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 1])

    Source: SPEC, D and I.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__(config, num_outputs=1)

    def first_blocks(self, count: int) -> list[nn.Module]:
        """The modules that see the image first: from RGB, and blocks.

        Args:
            count: of the blocks; 0 gives nothing.

        Raises:
            ValueError: there are fewer blocks.
        """
        if not 0 <= count <= len(self.blocks):
            raise ValueError(f"the discriminator has {len(self.blocks)} blocks, got {count}")
        return [self.from_rgb, *self.blocks[:count]] if count else []


class Recognizer(ResidualTrunk):
    """The codes that an image was made from (Q of InfoGAN, I of the authors): [N, C, H, W] -> [N, K].

    That of IB-GAN reads the random input z, and its representation encoder makes codes of it.

    Args:
        config: what the recogniser is made of.

    Attributes:
        encoder: z [N, Z] -> the distribution of codes, or None without a `z_dim`.

    >>> recognizer = Recognizer(RecognizerConfig(resolution=16, num_codes=5))
    >>> recognizer(torch.randn(2, 3, 16, 16)).shape
    torch.Size([2, 5])

    Source: SPEC, D and I.
    """

    config: RecognizerConfig

    def __init__(self, config: RecognizerConfig) -> None:
        super().__init__(config, num_outputs=config.num_codes if config.z_dim is None else config.z_dim)
        self.num_codes = config.num_codes
        self.encoder = None if config.z_dim is None else RepresentationEncoder(config.z_dim, config.num_codes)

    def read_input(self, images: Tensor) -> Tensor:
        """What the images [N, C, H, W] were made from: z [N, Z] where there is one, else the codes [N, K]."""
        return super().forward(images)

    def forward(self, images: Tensor) -> Tensor:
        """The codes [N, K] of images [N, C, H, W]; see `ResidualTrunk.forward`."""
        read = self.read_input(images)
        return read if self.encoder is None else self.encoder(read).mean
