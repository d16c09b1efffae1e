"""Generators of rosinality's stylegan2-pytorch, its SWAGAN included."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..attachment import Attachment
from ..hooks import ShieldFromTruncation, add_pre_hook, argument
from .base import Adapter, Site, add_layer_hooks, check_noise_mode, gpus_of, pass_codes_by, strip_styles, unwrap


class RosinalityAdapter(Adapter):
    """`style` maps z to w; the generator itself is the synthesis network, whose convolutions have a `modulation`."""

    name = "rosinality"
    examples = "model.Generator of rosinality's stylegan2-pytorch (layers conv1, convs.1, convs.3, ...)"

    def matches(self, generator: nn.Module) -> bool:
        parts = ("style", "style_dim", "conv1", "to_rgb1", "convs", "to_rgbs", "n_latent")
        return all(hasattr(generator, part) for part in parts)

    def sites(self, generator: nn.Module) -> list[Site]:
        net = cast(Any, generator)
        modules = {"conv1": (net.conv1, 0)} | {f"convs.{i}": (net.convs[i], i + 1) for i in range(1, len(net.convs), 2)}
        sizes = (4 << i for i in range(len(modules)))
        return [
            Site(name, name, module.conv.out_channel, (size, size), size, row)
            for size, (name, (module, row)) in zip(sizes, modules.items(), strict=True)
        ]

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        width = cast(int, generator.style_dim)
        return width, width

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        pass_codes_by(net, "style", record)
        named = [argument(net, name) for name in ("styles", "truncation_latent", "input_is_latent")]
        add_pre_hook(net, ShieldFromTruncation(record.w_dim, record.num_codes, *named))
        strip_styles(net, record, ("modulation",))
        add_layer_hooks(net, record, dict.fromkeys(record.modules, "style"))

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        unwrap(generator, "style")

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        net = cast(Any, generator)
        ws = net.style(z)
        if truncation_psi != 1:
            with torch.random.fork_rng(gpus_of(net)):
                centre = net.mean_latent(4096)
            width = net.style_dim  # of w without codes
            centre = torch.cat([centre[:, :width].expand(len(ws), -1), ws[:, width:]], dim=1)
            ws = centre.lerp(ws, truncation_psi)
        return cast(Tensor, ws[:, None].repeat(1, net.n_latent, 1))

    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        check_noise_mode(noise_mode, "const", "random")
        images, _ = generator([ws], input_is_latent=True, randomize_noise=noise_mode == "random")
        return cast(Tensor, images)

    def style_weights(self, generator: nn.Module) -> dict[int, Tensor]:
        net = cast(Any, generator)
        readers = [net.conv1, *net.convs, net.to_rgbs[-1]]
        return {row: reader.conv.modulation.weight for row, reader in enumerate(readers)}


ADAPTER = RosinalityAdapter()
