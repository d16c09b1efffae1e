"""Generators of stylegan3's configurations stylegan3-t and stylegan3-r, and of forks such as stylegan-xl."""

from __future__ import annotations

from typing import Any, cast

from torch import nn

from .base import Site, TwoPartAdapter


class StyleGAN3Adapter(TwoPartAdapter):
    """Layers `synthesis.L{index}_{size}_{channels}`, whose features exceed the picture by a margin.

    The nominal resolution of a layer is its sampling rate. Constriction breaks the equivariance of these networks: its
    rectangles stay where they are when the picture moves.
    """

    name = "stylegan3"
    examples = "training.networks_stylegan3.Generator of stylegan3 (layers L0_36_512, ...)"
    marker = "layer_names"
    row_argument = "w"

    def sites(self, generator: nn.Module) -> list[Site]:
        synthesis = cast(Any, generator).synthesis
        sites = []
        for row, name in enumerate(synthesis.layer_names, 1):  # the first row is the input's
            layer = getattr(synthesis, name)
            if layer.is_torgb:
                continue
            width, height = (int(length) for length in layer.out_size)
            rate = int(layer.out_sampling_rate)
            margin = (width - rate) // 2
            sites.append(Site(name, f"synthesis.{name}", int(layer.out_channels), (height, width), rate, row, margin))
        return sites

    def style_readers(self, synthesis: Any) -> list[Any]:
        return [getattr(synthesis, "input", None), *(getattr(synthesis, name) for name in synthesis.layer_names)]


ADAPTER = StyleGAN3Adapter()
