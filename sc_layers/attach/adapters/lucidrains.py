"""Networks of lucidrains' stylegan2-pytorch: its `StyleGAN2` (mapping, generator, their averages) or a `Generator`."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..hooks import LAYER, ConstrictInput, InFlight, ReplaceFeatures, add_hook, add_pre_hook
from .base import Adapter, Attachment, Site, add_mapping_hooks, add_synthesis_hooks, check_noise_mode

FEATURES = "to_rgb"  # reads the features of a block after its last activation
NOISE_SEED = 0


def _is_generator(module: nn.Module) -> bool:
    return all(hasattr(module, part) for part in ("latent_dim", "num_layers", "blocks", "attns", "initial_conv"))


class LucidrainsAdapter(Adapter):
    """`S` maps z to w, `G` is the synthesis network, `SE` and `GE` are their averages.

    Attached to the whole `StyleGAN2`, the averages get copies of the layers, and its optimiser the new parameters.
    """

    name = "lucidrains"
    examples = "StyleGAN2 or Generator of lucidrains' stylegan2-pytorch (layers blocks.0, blocks.1, ...)"

    def matches(self, generator: nn.Module) -> bool:
        return _is_generator(generator) or (
            all(hasattr(generator, part) for part in ("S", "SE", "GE")) and _is_generator(cast(Any, generator).G)
        )

    def _synthesis(self, generator: nn.Module) -> Any:
        return generator if _is_generator(generator) else cast(Any, generator).G

    def sites(self, generator: nn.Module) -> list[Site]:
        net = self._synthesis(generator)
        prefix = "" if net is generator else "G."
        return [
            Site(f"blocks.{i}", f"{prefix}blocks.{i}.{FEATURES}", block.conv2.filters, (4 << i, 4 << i), 4 << i)
            for i, block in enumerate(net.blocks)
        ]

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        width = cast(int, self._synthesis(generator).latent_dim)
        return width, width

    def add_layer_hooks(self, generator: nn.Module, module: str, flight: InFlight, start: int, stop: int) -> None:
        add_pre_hook(generator.get_submodule(module), ConstrictInput(flight, start, stop))
        add_hook(generator.get_submodule(module.removesuffix(f".{FEATURES}")), ReplaceFeatures(flight))

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = self._synthesis(generator)
        add_synthesis_hooks(net, record)
        net.latent_dim = record.w_dim + record.num_codes
        if net is generator:
            return
        model = cast(Any, generator)
        add_mapping_hooks(model.S, record)
        added = []
        for module, (start, stop) in zip(record.modules, record.groups(), strict=True):
            layer = model.get_submodule(module).get_submodule(LAYER)
            added += list(layer.parameters())
            average = "GE" + module.removeprefix("G")
            model.get_submodule(average).add_module(LAYER, copy.deepcopy(layer).requires_grad_(False))
            self.add_layer_hooks(model, average, record.flight, start, stop)
        add_mapping_hooks(model.SE, record)
        add_synthesis_hooks(model.GE, record)
        model.GE.latent_dim = net.latent_dim
        model.G_opt.add_param_group({"params": added})

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        net = self._synthesis(generator)
        net.latent_dim = record.w_dim
        if net is generator:
            return
        model = cast(Any, generator)
        model.GE.latent_dim = record.w_dim
        kept = {id(parameter) for parameter in model.parameters()}
        groups = model.G_opt.param_groups
        for group in [group for group in groups if not any(id(p) in kept for p in group["params"])]:
            for parameter in group["params"]:
                model.G_opt.state.pop(parameter, None)
            groups.remove(group)

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        if truncation_psi != 1:
            raise ValueError(f"lucidrains' networks truncate in their Trainer, not here: got {truncation_psi}")
        net = self._synthesis(generator)
        ws = z if net is generator else cast(Any, generator).SE(z)
        return cast(Tensor, ws[:, None].expand(-1, net.num_layers, -1))

    def to_images(self, generator: nn.Module, ws: Tensor, noise_mode: str) -> Tensor:
        check_noise_mode(noise_mode, "const", "random")
        net = self._synthesis(generator)
        size = (1, net.image_size, net.image_size, 1)
        source = torch.Generator().manual_seed(NOISE_SEED) if noise_mode == "const" else None
        noise = torch.rand(size, generator=source).to(ws.device)
        run = net if net is generator else cast(Any, generator).GE
        return cast(Tensor, run(ws, noise.expand(len(ws), -1, -1, -1)))


ADAPTER = LucidrainsAdapter()
