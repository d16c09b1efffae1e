"""The generator of the paper: a list of modules from a learned 4x4 map to the image, some of which read codes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..functional import layout_of
from ..layers import SoftmaxConstriction, SpatialConstriction
from ..messages import shown
from . import functional
from .config import NetworkConfig, scaled_width
from .module_list import (
    START_SIZE,
    ConstSpec,
    ConvSpec,
    ModuleSpec,
    NoiseSpec,
    SoftmaxSpec,
    SpatialSpec,
    check_resolution,
    format_module_list,
    module_sizes,
    num_codes,
    parse_module_list,
)
from .modules import NOISE_MODES, Const, ConvLayer, ConvModule, GlobalModule, NoiseMode, NoiseModule

_Config = TypeVar("_Config", bound="GeneratorConfig")


@dataclass(frozen=True, kw_only=True)
class GeneratorConfig(NetworkConfig):
    """What a generator is made of; the fields of `NetworkConfig` and the following.

    Args:
        module_list: the modules from `Const-n` to the last before the colours, as `parse_module_list` returns them.
        nf_scale: the width of the module at index i is that of stage i // nf_scale, as in the authors' program.
            None: it follows the resolution instead, stage log2(size) - 1, as in discriminator and recogniser.
    """

    module_list: tuple[ModuleSpec, ...]
    fmap_decay: float = 0.15
    nf_scale: int | None = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "module_list", parse_module_list(self.module_list))
        check_resolution(self.module_list, self.resolution)
        if self.num_codes < 1:
            raise ValueError(f"no module of the list reads a code: {format_module_list(self.module_list)}")
        if self.nf_scale is not None and self.nf_scale < 1:
            raise ValueError(f"nf_scale must be at least 1 or None, got {self.nf_scale}")

    @property
    def num_codes(self) -> int:
        """Codes that all modules together read."""
        return sum(map(num_codes, self.module_list))

    def module_widths(self) -> tuple[int, ...]:
        """Channels after each module. Constriction keeps the channels it gets, all others follow the rule of widths."""
        widths: list[int] = []
        for index, (spec, size) in enumerate(zip(self.module_list, module_sizes(self.module_list), strict=True)):
            if isinstance(spec, ConstSpec):
                widths.append(spec.channels)
            elif isinstance(spec, SpatialSpec | SoftmaxSpec):
                widths.append(widths[-1])
            else:
                stage = size.bit_length() - 2 if self.nf_scale is None else index // self.nf_scale
                widths.append(self.width(stage))
        return tuple(widths)

    def widened(self: _Config, factor: float) -> _Config:
        """The same network with `factor` times as many channels everywhere, the constant's too, 1 at least."""
        modules = (
            ConstSpec(scaled_width(spec.channels, factor)) if isinstance(spec, ConstSpec) else spec
            for spec in self.module_list
        )
        return dataclasses.replace(super().widened(factor), module_list=tuple(modules))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them, the modules as text."""
        return {**super().to_dict(), "module_list": format_module_list(self.module_list)}

    @classmethod
    def _read_field(cls, name: str, kind: str, value: Any) -> Any:
        if name == "module_list":
            if not isinstance(value, str):
                raise ValueError(f"{cls.__name__}: field module_list must be text, got {shown(value)}")
            return parse_module_list(value)
        return super()._read_field(name, kind, value)

    @classmethod
    def from_dict(cls: type[_Config], fields: Mapping[str, Any]) -> _Config:
        """The configuration whose `fields` `to_dict` wrote; see `NetworkConfig.from_dict`."""
        return super().from_dict(fields)


def _make_module(spec: ModuleSpec, size: int, before: int, after: int, impl: str) -> nn.Module:
    """The module of a record, at features of size x size pixels, with `before` and `after` channels."""
    if isinstance(spec, ConstSpec):
        return Const(after, START_SIZE)
    if isinstance(spec, ConvSpec):
        return ConvModule(before, after, spec.layers, spec.resample, spec.residual)
    if isinstance(spec, NoiseSpec):
        return NoiseModule(before, after, spec.layers, size)
    if isinstance(spec, SpatialSpec):
        return SpatialConstriction(before, size, spec.num_codes, spec.num_rects, impl=impl)
    if isinstance(spec, SoftmaxSpec):
        return SoftmaxConstriction(before, size, spec.num_codes)
    return GlobalModule(before, after, spec.num_codes)


def _expand_batch(x: Tensor, batch: int) -> Tensor:
    """Copies of the one sample in `x`, in its memory format; `x` itself if it is a batch already."""
    return x if x.shape[0] == batch else x.expand(batch, -1, -1, -1).contiguous(memory_format=layout_of(x))


class MappingNetwork(nn.Module):
    """z -> w of StyleGAN's interface: here w is the codes themselves, pulled towards their mean 0 by truncation.

    Args:
        num_codes: K.
    """

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.num_codes = num_codes

    def forward(self, z: Tensor, c: Tensor | None = None, truncation_psi: float = 1.0) -> Tensor:
        """w [N, K] of codes.

        Args:
            z: the codes [N, K].
            c: None, or labels of no columns as StyleGAN tools pass them.
            truncation_psi: factor on the codes.

        Raises:
            TypeError: codes are not of floating point.
            ValueError: codes of the wrong shape, or labels.
        """
        if z.ndim != 2 or z.shape[1] != self.num_codes:
            raise ValueError(f"codes must have shape (N, {self.num_codes}), got {tuple(z.shape)}")
        if not z.is_floating_point():
            raise TypeError(f"codes must be of floating point, got {z.dtype}")
        if c is not None and c.numel():
            raise ValueError(f"this generator has no labels (c_dim is 0), got c of shape {tuple(c.shape)}")
        return z if truncation_psi == 1 else z * truncation_psi


class SynthesisNetwork(nn.Module):
    """w -> image, module by module.

    Args:
        config: the generator's configuration.
        impl: implementation of the spatial constriction, see `SpatialConstriction`.
    """

    def __init__(self, config: GeneratorConfig, impl: str = "auto") -> None:
        super().__init__()
        self.image_size = (config.resolution, config.resolution)
        self.codes_per_module = tuple(map(num_codes, config.module_list))
        sizes, widths = module_sizes(config.module_list), config.module_widths()
        self.layers = nn.ModuleList(
            _make_module(spec, size, before, after, impl)
            for spec, size, before, after in zip(config.module_list, sizes, (0, *widths), widths, strict=False)
        )
        self.to_rgb = ConvLayer(widths[-1], config.num_channels, kernel_size=1, activate=False)

    def forward(
        self,
        w: Tensor,  # [N, K]
        noise_mode: NoiseMode = "random",
        return_masks: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Images [N, C, H, W] of w [N, K], and with `return_masks` their masks [N, M, H, W], as the generator has them.

        Args:
            w: the codes [N, K], truncated.
            noise_mode: "random", "const" or "none", see `Generator.forward`.
            return_masks: whether to return the masks as well.

        Raises:
            ValueError: an unknown noise mode.
        """
        if noise_mode not in NOISE_MODES:
            raise ValueError(f"noise_mode must be one of {', '.join(NOISE_MODES)}, got {noise_mode!r}")
        dtype = self.to_rgb.weight.dtype
        groups = torch.split_with_sizes(w.to(dtype), self.codes_per_module, dim=1)
        masks = [w.new_zeros(w.shape[0], 0, *self.image_size, dtype=dtype)]
        x = self.layers[0]()
        for layer, codes in zip(self.layers[1:], groups[1:], strict=True):
            # Up to the first module that reads codes or draws noise all samples are equal: one is enough.
            if codes.shape[1] or (isinstance(layer, NoiseModule) and noise_mode == "random"):
                x = _expand_batch(x, w.shape[0])
            if isinstance(layer, SpatialConstriction | SoftmaxConstriction) and return_masks:
                x, layer_masks = layer(x, codes, return_masks=True)
                masks.append(functional.resize_bilinear_legacy(layer_masks, self.image_size))
            elif codes.shape[1]:
                x = layer(x, codes)
            elif isinstance(layer, NoiseModule):
                x = layer(x, noise_mode)
            else:
                x = layer(x)
        images = self.to_rgb(x).to(dtype)
        return (images, torch.cat(masks, dim=1)) if return_masks else images


class Generator(nn.Module):
    """Generator of the paper (Fig. 1): a learned map, convolutions, and modules through which the codes act.

    It has the interface of NVIDIA's StyleGAN2-ADA as well: `mapping`, `synthesis`, `z_dim`, `w_dim`, `num_ws`, `c_dim`,
    `img_resolution`, `img_channels`.

    Args:
        config: what the generator is made of.
        impl: implementation of the spatial constriction, "auto", "fused" or "reference".

    Attributes:
        num_codes: K, the length of the code vector.
        masked_codes: indices of the codes that have a mask, in the order of the returned masks.

    >>> config = GeneratorConfig(module_list="[Const-16, ResConv-up-1, C_spgroup-4-5, ResConv-up-1]", resolution=16)
    >>> images, masks = Generator(config)(torch.randn(2, 5), return_masks=True)
    >>> images.shape, masks.shape
    (torch.Size([2, 3, 16, 16]), torch.Size([2, 5, 16, 16]))

    Source: SPEC of the authors' program; paper Sec. 3.
    """

    c_dim = 0
    num_ws = 1

    def __init__(self, config: GeneratorConfig, impl: str = "auto") -> None:
        super().__init__()
        self.config = config
        self.num_codes = self.z_dim = self.w_dim = config.num_codes
        self.img_resolution = config.resolution
        self.img_channels = config.num_channels
        owners = [spec for spec in config.module_list for _ in range(num_codes(spec))]
        self.masked_codes = tuple(k for k, spec in enumerate(owners) if isinstance(spec, SpatialSpec | SoftmaxSpec))
        self.mapping = MappingNetwork(config.num_codes)
        self.synthesis = SynthesisNetwork(config, impl)

    def forward(
        self,
        codes: Tensor,  # [N, K]
        c: Tensor | None = None,
        *,
        noise_mode: NoiseMode = "random",
        return_masks: bool = False,
        truncation_psi: float = 1.0,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Images of codes.

        Args:
            codes: [N, K].
            c: None, or labels of no columns as StyleGAN tools pass them.
            noise_mode: what `Noise` modules add: "random" draws a fresh map for every sample, "const" takes the stored
                maps, "none" adds nothing.
            return_masks: whether to return the masks as well.
            truncation_psi: factor on the codes, whose mean is 0.

        Returns:
            Images [N, C, H, W], about in [-1, 1]. With `return_masks` also the masks [N, M, H, W] of the M codes that
            have one (`masked_codes`), resized to the images.

        Raises:
            TypeError: codes are not of floating point.
            ValueError: codes of the wrong shape, labels, or an unknown noise mode.
        """
        w = self.mapping(codes, c, truncation_psi=truncation_psi)
        images: Tensor | tuple[Tensor, Tensor] = self.synthesis(w, noise_mode=noise_mode, return_masks=return_masks)
        return images


def code_readers(generator: Generator) -> list[nn.Module]:
    """The modules of `generator` that read codes, in the order of their codes."""
    synthesis = generator.synthesis
    return [layer for layer, codes in zip(synthesis.layers, synthesis.codes_per_module, strict=True) if codes]
