"""Generators of rosinality's stylegan2-pytorch, its SWAGAN included."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..hooks import Forget, ShieldFromTruncation, StripStyle, add_hook, add_pre_hook
from .base import Adapter, Attachment, Site, add_mapping_hooks, check_noise_mode


class RosinalityAdapter(Adapter):
    """`style` maps z to w; the generator itself is the synthesis network: every layer gets its w, codes stripped."""

    name = "rosinality"
    examples = "model.Generator of rosinality's stylegan2-pytorch (layers conv1, convs.1, convs.3, ...)"

    def matches(self, generator: nn.Module) -> bool:
        parts = ("style", "style_dim", "conv1", "to_rgb1", "convs", "to_rgbs", "n_latent")
        return all(hasattr(generator, part) for part in parts)

    def sites(self, generator: nn.Module) -> list[Site]:
        net = cast(Any, generator)
        modules = {"conv1": net.conv1} | {f"convs.{i}": net.convs[i] for i in range(1, len(net.convs), 2)}
        return [
            Site(name, name, module.conv.out_channel, (size, size), size)
            for size, (name, module) in zip((4 << i for i in range(len(modules))), modules.items(), strict=True)
        ]

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        width = cast(int, generator.style_dim)
        return width, width

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        add_mapping_hooks(net.style, record)
        settings = (record.flight, record.w_dim, record.num_codes, "w", not record.codes_in_path_length)
        add_pre_hook(net, ShieldFromTruncation(*settings))
        add_hook(net, Forget(record.flight), always=True)
        for layer in (net.conv1, net.to_rgb1, *net.convs, *net.to_rgbs):
            add_pre_hook(layer, StripStyle(*settings, first=layer is net.conv1))

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        net = cast(Any, generator)
        ws = net.style(z)
        if truncation_psi != 1:
            with torch.random.fork_rng():
                centre = net.mean_latent(4096)
            codes = slice(-cast(Attachment, net.spatial_constriction).num_codes, None)
            centre = torch.cat([centre[:, : codes.start].expand(len(ws), -1), ws[:, codes]], dim=1)
            ws = centre.lerp(ws, truncation_psi)
        return cast(Tensor, ws[:, None].repeat(1, net.n_latent, 1))

    def to_images(self, generator: nn.Module, ws: Tensor, noise_mode: str) -> Tensor:
        check_noise_mode(noise_mode, "const", "random")
        images, _ = generator([ws], input_is_latent=True, randomize_noise=noise_mode == "random")
        return cast(Tensor, images)


ADAPTER = RosinalityAdapter()
