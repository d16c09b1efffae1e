"""Generators of NVlabs' eg3d: a StyleGAN2 that draws three feature planes, a renderer, and an upsampling network."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..attachment import Attachment
from .base import (
    Adapter,
    Site,
    add_layer_hooks,
    let_wide_w_pass,
    narrow_arguments,
    pass_codes_by,
    tell_width,
    unwrap,
    widen_arguments,
)
from .stylegan2_ada import ADAPTER as BACKBONE
from .stylegan2_ada import block_sites


class Eg3dAdapter(Adapter):
    """`mapping` and `synthesis` are methods; `backbone` has both as modules, and `superresolution` reads w, too.

    Masks lie on the planes, not on the picture: a code acts in a part of space.
    """

    name = "eg3d"
    examples = "training.triplane.TriPlaneGenerator of eg3d (layers b4, b8, ...)"

    def matches(self, generator: nn.Module) -> bool:
        parts = ("backbone", "superresolution", "renderer", "z_dim", "w_dim")
        return all(hasattr(generator, part) for part in parts) and BACKBONE.matches(cast(Any, generator).backbone)

    def sites(self, generator: nn.Module) -> list[Site]:
        return block_sites(cast(Any, generator).backbone.synthesis, "backbone.synthesis.")

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        return cast(int, generator.z_dim), cast(int, generator.w_dim)

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        pass_codes_by(net.backbone, "mapping", record)
        let_wide_w_pass(net.backbone.synthesis, record, "ws")
        let_wide_w_pass(net.superresolution, record, "ws")
        rows = {path: BACKBONE.row_argument_of(net.get_submodule(path)) for path in record.modules}
        add_layer_hooks(net, record, rows)
        widen_arguments(net, record)

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        unwrap(net.backbone, "mapping")
        for part in (net.backbone.synthesis, net.superresolution):
            tell_width(part, record.w_dim + record.num_codes, record.w_dim)
        narrow_arguments(net, record)

    def run_on(self, generator: nn.Module, z: Tensor) -> None:
        net = cast(Any, generator)
        net.backbone.synthesis(net.mapping(z, z.new_zeros(len(z), net.c_dim)), noise_mode="const")

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        return cast(Tensor, cast(Any, generator).mapping(z, c, truncation_psi=truncation_psi))

    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        if c is None or not torch.any(c):
            raise ValueError("a generator of eg3d needs a camera: give c, [1, 25]")
        return cast(Tensor, cast(Any, generator).synthesis(ws, c.expand(len(ws), -1), noise_mode=noise_mode)["image"])


ADAPTER = Eg3dAdapter()
