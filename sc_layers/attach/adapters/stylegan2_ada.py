"""Generators of stylegan2-ada-pytorch, of stylegan3's configuration stylegan2, and of their forks."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from .base import Site, TwoPartAdapter


class StyleGAN2AdaAdapter(TwoPartAdapter):
    """Blocks `synthesis.b{resolution}`; the features behind `conv1`, or behind a residual block as a whole."""

    name = "stylegan2_ada"
    examples = "training.networks.Generator of stylegan2-ada-pytorch (layers b4, b8, ...)"
    marker = "block_resolutions"

    def sites(self, generator: nn.Module) -> list[Site]:
        return block_sites(cast(Any, generator).synthesis, "synthesis.")

    def row_argument_of(self, module: nn.Module) -> str:
        return "ws" if hasattr(module, "conv1") else "w"

    def style_readers(self, synthesis: Any) -> list[Any]:
        blocks = [getattr(synthesis, f"b{resolution}") for resolution in synthesis.block_resolutions]
        convolutions = [getattr(block, name) for block in blocks for name in ("conv0", "conv1") if hasattr(block, name)]
        return [*convolutions, blocks[-1].torgb]


def block_sites(synthesis: Any, prefix: str) -> list[Site]:
    """Sites of a network `synthesis` of such blocks, whose dotted path `prefix` ends in a dot."""
    sites = []
    row = -1
    for resolution in synthesis.block_resolutions:
        block = getattr(synthesis, f"b{resolution}")
        row += 2 if hasattr(block, "conv0") else 1
        residual = block.architecture == "resnet"
        if residual and block.is_last:  # its ToRGB reads the features before the block returns them
            continue
        module = f"{prefix}b{resolution}" + ("" if residual else ".conv1")
        channels = block.conv1.weight.shape[0]
        sites.append(Site(f"b{resolution}", module, channels, (resolution, resolution), resolution, row))
    return sites


ADAPTER = StyleGAN2AdaAdapter()
