"""Generators of stylegan2-ada-pytorch, and of stylegan3's configuration stylegan2."""

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
        synthesis = cast(Any, generator).synthesis
        sites = []
        for resolution in synthesis.block_resolutions:
            block = getattr(synthesis, f"b{resolution}")
            residual = block.architecture == "resnet"
            if residual and block.is_last:  # its ToRGB reads the features before the block returns them
                continue
            module = f"synthesis.b{resolution}" + ("" if residual else ".conv1")
            channels = block.conv1.weight.shape[0]
            sites.append(Site(f"b{resolution}", module, channels, (resolution, resolution), resolution))
        return sites


ADAPTER = StyleGAN2AdaAdapter()
