"""Networks of lucidrains' stylegan2-pytorch: its `StyleGAN2` (mapping, generator, their averages) or a `Generator`."""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..attachment import Attachment
from ..hooks import LAYER, ConstrictInput, InFlight, ReplaceFeatures, StripCodes, add_hook, add_pre_hook, argument
from .base import Adapter, Site, check_noise_mode, pass_codes_by, strip_styles, unwrap

FEATURES = "to_rgb"  # reads the features of a block after its last activation
STYLES = ("to_style1", "to_style2", "to_style")
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
            Site(f"blocks.{i}", f"{prefix}blocks.{i}.{FEATURES}", block.conv2.filters, (4 << i, 4 << i), 4 << i, i)
            for i, block in enumerate(net.blocks)
        ]

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        width = cast(int, self._synthesis(generator).latent_dim)
        return width, width

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = self._synthesis(generator)
        self._install_synthesis(net, record, generator, record.modules)
        if net is generator:
            return
        model = cast(Any, generator)
        added = []
        averages = [average for _, average in self.copies(record)]
        for module, average in self.copies(record):
            layer = model.get_submodule(module).get_submodule(LAYER)
            added += list(layer.parameters())
            model.get_submodule(average).add_module(LAYER, copy.deepcopy(layer).requires_grad_(False))
        self._install_synthesis(model.GE, record, generator, averages)
        for mapping in ("S", "SE"):
            pass_codes_by(model, mapping, record)
        model.G_opt.add_param_group({"params": added})

    def copies(self, record: Attachment) -> list[list[str]]:
        if not record.modules[0].startswith("G."):
            return super().copies(record)
        return [[module, "GE" + module.removeprefix("G")] for module in record.modules]

    def _install_synthesis(self, net: Any, record: Attachment, generator: nn.Module, modules: Any) -> None:
        net.latent_dim = record.w_dim + record.num_codes
        strip_styles(net, record, STYLES)
        if net.no_const:
            start = net.to_initial_block
            add_pre_hook(start, StripCodes(record.w_dim, record.num_codes, argument(start), dim=1))
        for path, (start, stop) in zip(modules, record.groups(), strict=True):
            reader, flight = generator.get_submodule(path), InFlight()
            row = (start, stop, record.w_dim, argument(reader, "istyle"), record.codes_in_path_length)
            add_pre_hook(reader, ConstrictInput(argument(reader, "x"), flight, *row))
            add_hook(generator.get_submodule(path.removesuffix(f".{FEATURES}")), ReplaceFeatures(flight))

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        net = self._synthesis(generator)
        net.latent_dim = record.w_dim
        if net is generator:
            return
        model = cast(Any, generator)
        model.GE.latent_dim = record.w_dim
        for mapping in ("S", "SE"):
            unwrap(model, mapping)
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

    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        check_noise_mode(noise_mode, "const", "random")
        net = self._synthesis(generator)
        size = (1, net.image_size, net.image_size, 1)
        source = torch.Generator().manual_seed(NOISE_SEED) if noise_mode == "const" else None
        noise = torch.rand(size, generator=source).to(ws.device)
        run = net if net is generator else cast(Any, generator).GE
        return cast(Tensor, run(ws, noise.expand(len(ws), -1, -1, -1)))


ADAPTER = LucidrainsAdapter()
