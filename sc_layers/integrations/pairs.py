"""The second image of a pair for the perceptual simplicity loss, joined to a training step that knows only the first.

The code bases' losses call the generator once and `backward` once. The recogniser's loss on the pair is differentiated
apart; what it says about the two images is added when that one `backward` reaches them. So a step costs one more pass
of the generator, and gradient synchronisation sees one backward pass as before.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ..losses import PerceptualSimplicityLoss, perceptual_simplicity_loss


class RandomState(NamedTuple):
    """State of the random numbers that generators draw from: Python's, and PyTorch's on one device."""

    python: tuple[Any, ...]
    torch: Tensor


def random_state(device: torch.device) -> RandomState:
    """The current state, with PyTorch's on `device`."""
    on_gpu = device.type == "cuda"
    return RandomState(random.getstate(), torch.cuda.get_rng_state(device) if on_gpu else torch.get_rng_state())


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Let Python, and PyTorch on `device`, draw the random numbers that follow `state`."""
    random.setstate(state.python)
    if device.type == "cuda":
        torch.cuda.set_rng_state(state.torch, device)
    else:
        torch.set_rng_state(state.torch)


@contextmanager
def replayed(state: RandomState, device: torch.device) -> Iterator[None]:
    """Draw the random numbers that followed `state` on `device` once more, then go on where we were."""
    now = random_state(device)
    set_random_state(state, device)
    try:
        yield
    finally:
        set_random_state(now, device)


class _JoinPair(torch.autograd.Function):
    """Returns `images`; their gradient also gets `grad`, and that of `partner` is `grad_partner`."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, partner: Tensor, grad: Tensor, grad_partner: Tensor) -> Tensor:
        ctx.save_for_backward(grad, grad_partner)
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad, grad_partner = ctx.saved_tensors
        return grad_outputs[0] + grad, grad_partner, None, None


class PairLoss(NamedTuple):
    """Images to go on with, and for the logs, detached, the weighted loss and the errors of reading the codes."""

    images: Tensor  # [B, C, H, W]
    loss: Tensor  # [B]
    errors: Tensor  # [B, K], squared, of the first image of each pair


def add_pair_loss(
    images: Tensor,  # [B, C, H, W]
    codes: Tensor,  # [B, K]
    generate: Callable[[Tensor], Tensor],
    recognizer: nn.Module,
    settings: PerceptualSimplicityLoss,
    gain: float,
) -> PairLoss:
    """Add the perceptual simplicity loss (Eq. 8 and 9) of images and partners that differ in one code.

    Differentiates the loss for the recogniser at once, and for the generator when a loss of the returned images is
    differentiated, which has to happen exactly once.

    Args:
        images: [B, C, H, W], made of `codes`, with a trace to the generator.
        codes: what they were made of.
        generate: codes [B, K] -> their partners [B, C, H, W], everything else as in `images`.
        recognizer: images -> codes.
        settings: how to perturb, and weight and reduction of the loss.
        gain: multiplies the mean over pairs.
    """
    perturbed = settings.perturb(codes)
    partner = generate(perturbed.codes)
    seen = torch.cat([images, partner]).detach().requires_grad_()
    pred, pred_perturbed = recognizer(seen).chunk(2)
    loss = settings.weight * perceptual_simplicity_loss(
        pred, pred_perturbed, codes, perturbed.codes, perturbed.dims, settings.reduction
    )
    torch.autograd.backward(loss.mean() * gain)
    grad, grad_partner = cast(Tensor, seen.grad).chunk(2)
    joined = cast(Tensor, _JoinPair.apply(images, partner, grad, grad_partner))
    return PairLoss(joined, loss.detach(), (pred - codes).detach().square())
