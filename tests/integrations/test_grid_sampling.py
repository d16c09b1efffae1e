from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import grid_sample as torch_grid_sample

from sc_layers.integrations.grid_sampling import grid_sample

from ..tolerances import SAME_FORMULA


def make(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Images, and a grid that reaches beyond their edges."""
    images = torch.randn(2, 3, 5, 6, dtype=dtype, requires_grad=True)
    return images, torch.rand(2, 4, 3, 2, dtype=dtype) * 2.6 - 1.3


@pytest.mark.parametrize("channels_last", [False, True])
def test_values_and_gradients_are_those_of_pytorch(channels_last: bool) -> None:
    images, grid = make(torch.float32)
    if channels_last:
        images = images.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    outputs = [sample(images, grid) for sample in (grid_sample, lambda *a: torch_grid_sample(*a, align_corners=False))]
    assert torch.equal(*outputs)
    upstream = torch.randn_like(outputs[0])
    gradients = [torch.autograd.grad(output, images, upstream)[0] for output in outputs]
    torch.testing.assert_close(*gradients, **SAME_FORMULA[torch.float32])


def test_derivatives_up_to_the_third() -> None:
    images, grid = make()
    assert gradcheck(lambda images: grid_sample(images, grid), images)
    assert gradgradcheck(lambda images: grid_sample(images, grid).pow(3), images)

    def gradient(images: Tensor) -> Tensor:
        return torch.autograd.grad(grid_sample(images, grid).pow(4).sum(), images, create_graph=True)[0]

    assert gradgradcheck(gradient, images)


def test_a_grid_that_is_learned_has_the_gradient_of_pytorch() -> None:
    images, grid = make()
    grid.requires_grad_()
    assert gradcheck(grid_sample, (images, grid))
