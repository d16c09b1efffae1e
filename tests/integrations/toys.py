"""Small generators with the call conventions of the code bases, written for the tests."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

WIDTH = 6  # channels
W_DIM = 16  # as small as rows of w stay aligned, so that products with them round alike


class StyledLayer(nn.Module):
    """3x3 convolution whose input is scaled by w, with noise."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        self.affine = nn.Linear(w_dim, in_channels)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3) / in_channels)
        self.noise_strength = nn.Parameter(torch.tensor(0.1))
        self.register_buffer("noise_const", torch.randn(size, size))

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "random") -> Tensor:
        x = nn.functional.conv2d(x * (self.affine(w) + 1)[:, :, None, None], self.weight, padding=1)
        shape = (len(x), 1, *x.shape[2:])
        noise = torch.randn(shape, device=x.device) if noise_mode == "random" else self.noise_const
        return nn.functional.leaky_relu(x + (noise * self.noise_strength if noise_mode != "none" else 0), 0.2)


class Mapping(nn.Module):
    def __init__(self, z_dim: int, c_dim: int, w_dim: int, num_ws: int) -> None:
        super().__init__()
        self.z_dim, self.num_ws = z_dim, num_ws
        self.fc = nn.Linear(z_dim + c_dim, w_dim)
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(
        self, z: Tensor, c: Tensor | None, truncation_psi: float = 1, skip_w_avg_update: bool = False
    ) -> Tensor:
        assert z.shape[1] == self.z_dim
        w = self.fc(z.float() if c is None else torch.cat([z.float(), c.float()], dim=1)).tanh()
        if self.training and not skip_w_avg_update:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, 0.9))
        return self.w_avg.lerp(w[:, None].repeat(1, self.num_ws, 1), truncation_psi)


class Block(nn.Module):
    """As stylegan2-ada's blocks, skip or residual."""

    def __init__(self, w_dim: int, resolution: int, architecture: str, is_last: bool) -> None:
        super().__init__()
        self.resolution, self.architecture, self.is_last = resolution, architecture, is_last
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(WIDTH, 4, 4))
        else:
            self.conv0 = StyledLayer(WIDTH, WIDTH, w_dim, resolution)
        self.conv1 = StyledLayer(WIDTH, WIDTH, w_dim, resolution)
        self.torgb = nn.Conv2d(WIDTH, 3, 1)

    def forward(self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise_mode: str = "random") -> Any:
        before = None
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1)
        else:
            before = x = nn.functional.interpolate(x, scale_factor=2)
            x = self.conv0(x, ws[:, 0], noise_mode=noise_mode)
        x = self.conv1(x, ws[:, 0 if before is None else 1], noise_mode=noise_mode)
        if self.architecture == "resnet" and before is not None:
            x = x + before
        if self.architecture == "skip" or self.is_last:
            rgb = self.torgb(x)
            image = rgb if image is None else nn.functional.interpolate(image, scale_factor=2) + rgb
        return x, image


class Synthesis(nn.Module):
    def __init__(self, w_dim: int, resolution: int, architecture: str) -> None:
        super().__init__()
        self.w_dim = w_dim
        self.block_resolutions = [4 << i for i in range(resolution.bit_length() - 2)]
        self.num_ws = 2 * len(self.block_resolutions)
        for size in self.block_resolutions:
            setattr(self, f"b{size}", Block(w_dim, size, architecture, size == resolution))

    def forward(self, ws: Tensor, noise_mode: str = "random") -> Tensor:
        assert ws.shape[1:] == (self.num_ws, self.w_dim)
        x = image = None
        row = 0
        for size in self.block_resolutions:
            block = getattr(self, f"b{size}")
            convolutions = 1 + (size > 4)
            x, image = block(x, image, ws[:, row : row + convolutions], noise_mode=noise_mode)
            row += convolutions
        return image


class AdaLikeGenerator(nn.Module):
    """Conventions of stylegan2-ada-pytorch and of stylegan3's configuration stylegan2."""

    def __init__(self, resolution: int = 32, c_dim: int = 0, architecture: str = "skip") -> None:
        super().__init__()
        self._init_kwargs = {"resolution": resolution, "c_dim": c_dim, "architecture": architecture}
        self.z_dim, self.c_dim, self.w_dim, self.img_resolution, self.img_channels = 5, c_dim, W_DIM, resolution, 3
        self.synthesis = Synthesis(self.w_dim, resolution, architecture)
        self.num_ws = self.synthesis.num_ws
        self.mapping = Mapping(self.z_dim, c_dim, self.w_dim, self.num_ws)

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1, **options: Any) -> Tensor:
        return self.synthesis(self.mapping(z, c, truncation_psi=truncation_psi), **options)


class Upsampler(nn.Module):
    """A second network that reads w, besides features, as in eg3d."""

    def __init__(self) -> None:
        super().__init__()
        self.block0 = Block(W_DIM, 64, "skip", is_last=True)
        self.block0.w_dim = W_DIM

    def forward(self, rgb: Tensor, x: Tensor, ws: Tensor) -> Tensor:
        assert ws.shape[-1] == self.block0.w_dim
        return self.block0(x, rgb, ws[:, -1:].repeat(1, 2, 1), noise_mode="const")[1]


class MarginLayer(StyledLayer):
    def __init__(self, w_dim: int, size: int, rate: int, is_torgb: bool = False) -> None:
        super().__init__(WIDTH, 3 if is_torgb else WIDTH, w_dim, size)
        self.out_size, self.out_sampling_rate, self.is_torgb = np.array([size, size]), rate, is_torgb
        self.out_channels = self.weight.shape[0]

    def forward(self, x: Tensor, w: Tensor, noise_mode: str = "none") -> Tensor:
        return super().forward(nn.functional.interpolate(x, tuple(self.out_size)), w, noise_mode="none")


class MarginSynthesis(nn.Module):
    """As stylegan3-t's: features with a margin of 2 pixels a side, two layers of sampling rate 8."""

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        self.layer_names = ["L0_12_6", "L1_12_6", "L2_20_6", "L3_16_3"]
        for name, size, rate in zip(self.layer_names, (12, 12, 20, 16), (8, 8, 16, 16), strict=True):
            setattr(self, name, MarginLayer(w_dim, size, rate, is_torgb=name.endswith("_3")))

    def forward(self, ws: Tensor, noise_mode: str = "none") -> Tensor:
        x = torch.ones(len(ws), WIDTH, 12, 12)
        for row, name in enumerate(self.layer_names, 1):  # the first row places the input
            x = getattr(self, name)(x, ws[:, row])
        return x


class MarginGenerator(AdaLikeGenerator):
    """Conventions of stylegan3-t and -r."""

    def __init__(self) -> None:
        super().__init__(resolution=16)
        self.synthesis = MarginSynthesis(self.w_dim)


class RosinalityConvolution(StyledLayer):
    def __init__(self, out_channels: int, w_dim: int, size: int) -> None:
        super().__init__(WIDTH, out_channels, w_dim, size)
        self.out_channel = out_channels
        self.modulation = self._modules.pop("affine")

    @property
    def affine(self) -> nn.Module:
        return self.modulation


class RosinalityLayer(nn.Module):
    def __init__(self, w_dim: int, size: int, upsample: bool = False, out_channels: int = WIDTH) -> None:
        super().__init__()
        self.upsample = upsample
        self.conv = RosinalityConvolution(out_channels, w_dim, size)

    def forward(self, input: Tensor, style: Tensor, skip: Tensor | None = None, random: bool = True) -> Tensor:
        x = nn.functional.interpolate(input, scale_factor=2) if self.upsample else input
        x = self.conv(x, style, noise_mode="random" if random else "const")
        return x if skip is None else x + nn.functional.interpolate(skip, scale_factor=2)


class RosinalityLikeGenerator(nn.Module):
    """Conventions of rosinality's stylegan2-pytorch, at 16x16."""

    def __init__(self) -> None:
        super().__init__()
        self.style_dim, self.n_latent = W_DIM, 6
        self.style = nn.Sequential(nn.Linear(W_DIM, W_DIM), nn.Tanh())
        self.input = nn.Parameter(torch.randn(1, WIDTH, 4, 4))
        self.conv1 = RosinalityLayer(W_DIM, 4)
        self.to_rgb1 = RosinalityLayer(W_DIM, 4, out_channels=3)
        sizes = (8, 16)
        self.convs = nn.ModuleList(RosinalityLayer(W_DIM, size, upsample=i == 0) for size in sizes for i in range(2))
        self.to_rgbs = nn.ModuleList(RosinalityLayer(W_DIM, size, out_channels=3) for size in sizes)

    def mean_latent(self, number: int) -> Tensor:
        return self.style(torch.randn(number, self.style_dim)).mean(0, keepdim=True)

    def forward(
        self,
        styles: list[Tensor],
        return_latents: bool = False,
        inject_index: int | None = None,
        truncation: float = 1,
        truncation_latent: Tensor | None = None,
        input_is_latent: bool = False,
        randomize_noise: bool = True,
    ) -> tuple[Tensor, Tensor | None]:
        if not input_is_latent:
            styles = [self.style(z) for z in styles]
        if truncation < 1:
            styles = [truncation_latent + truncation * (w - truncation_latent) for w in styles]
        index = self.n_latent if len(styles) == 1 else inject_index or 2
        parts = [styles[0][:, None].repeat(1, index, 1) if styles[0].ndim == 2 else styles[0]]
        parts += [w[:, None].repeat(1, self.n_latent - index, 1) for w in styles[1:]]
        latent = torch.cat(parts, dim=1)
        x = self.conv1(self.input.expand(len(latent), -1, -1, -1), latent[:, 0], random=randomize_noise)
        image = self.to_rgb1(x, latent[:, 1], random=False)
        for i, (first, second, to_rgb) in enumerate(zip(self.convs[::2], self.convs[1::2], self.to_rgbs, strict=True)):
            x = first(x, latent[:, 2 * i + 1], random=randomize_noise)
            x = second(x, latent[:, 2 * i + 2], random=randomize_noise)
            image = to_rgb(x, latent[:, 2 * i + 3], skip=image, random=False)
        return image, latent if return_latents else None


def rosinality_images(generator: nn.Module, *z: Tensor, **options: Any) -> Tensor:
    """Images of z, or of several whose styles are mixed, with the noise fixed."""
    return generator(list(z), randomize_noise=False, **options)[0]
