"""Bilinear sampling whose gradient can be differentiated on every PyTorch.

Before PyTorch 2.12, `torch.nn.functional.grid_sample` has first derivatives only, but R1 regularisation differentiates
the gradient through the augmentations of stylegan2-ada-pytorch.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.functional import grid_sample as torch_grid_sample

BILINEAR, ZEROS = 0, 0


def grid_sample(input: Tensor, grid: Tensor) -> Tensor:
    """Sample bilinearly, with zeros outside, corners not aligned: `torch.nn.functional.grid_sample` by default.

    For a given grid this is linear in the images, so it and its transpose are each other's derivatives, to any order.

    Args:
        input: images [N, C, H, W]. The names of the arguments are those of stylegan2-ada-pytorch.
        grid: where to sample, [N, H', W', 2], -1 to 1 from edge to edge. Where it requires gradients, PyTorch's own
            function runs, with the derivatives that it has.

    Returns:
        [N, C, H', W'].
    """
    if grid.requires_grad:
        return torch_grid_sample(input, grid, align_corners=False)
    return cast(Tensor, _Sample.apply(input, grid))


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.size = images.shape
        return torch_grid_sample(images, grid, align_corners=False)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        return cast(Tensor, _Spread.apply(grad_outputs[0], *ctx.saved_tensors, ctx.size)), None


class _Spread(torch.autograd.Function):
    """The transpose of `_Sample`: adds every value to the pixels that it was sampled from, by their weights."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, grid: Tensor, size: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        images = values.new_zeros(()).expand(size)  # only their shape matters
        images_alone = (True, False)
        return cast(
            Tensor,
            torch.ops.aten.grid_sampler_2d_backward(values, images, grid, BILINEAR, ZEROS, False, images_alone)[0],
        )

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return cast(Tensor, _Sample.apply(grad_outputs[0], *ctx.saved_tensors)), None, None
