"""Losses of the PS-SC GAN: perceptual simplicity (paper, Sec. 3.2) and the adversarial ones of StyleGAN2."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

REDUCTIONS = ("official", "paper")


def perceptual_simplicity_loss(
    pred: Tensor,  # [B, K]
    pred_perturbed: Tensor,  # [B, K]
    codes: Tensor,  # [B, K]
    codes_perturbed: Tensor,  # [B, K]
    dims: Tensor,  # [B]
    reduction: str = "official",
) -> Tensor:
    """Perceptual simplicity loss of every pair of images (Eq. 8 and 9).

    On the perturbed code both predictions must be right; on the shared ones only their average must be.

    Args:
        pred: [B, K], the recogniser's codes of the images of `codes`.
        pred_perturbed: [B, K], its codes of the images of `codes_perturbed`.
        codes: [B, K].
        codes_perturbed: [B, K], equal to `codes` but for one entry a row.
        dims: [B], integer index of that entry.
        reduction: "official", half of the sum over codes as in the authors' program, or "paper", the mean over
            codes as in Eq. 9; the former is K/2 times the latter.

    Returns:
        The loss of each pair, [B].

    Raises:
        ValueError: shapes that do not fit, or an unknown reduction.
        TypeError: `dims` is not of integers.

    Example: a recogniser that reads both images rightly costs nothing, one that takes the shared code for moved does.

    >>> codes, perturbed, dims = torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 5.0]]), torch.tensor([1])
    >>> perceptual_simplicity_loss(codes, perturbed, codes, perturbed, dims)
    tensor([0.])
    >>> perceptual_simplicity_loss(codes, torch.tensor([[3.0, 5.0]]), codes, perturbed, dims)
    tensor([1.])

    Source: paper Eq. 8-9; SPEC of the authors' loss.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
    tensors = {"pred": pred, "pred_perturbed": pred_perturbed, "codes_perturbed": codes_perturbed}
    for name, tensor in tensors.items():
        if codes.ndim != 2 or tensor.shape != codes.shape:
            raise ValueError(
                f"{name} must have the shape [B, K] of codes: got {tuple(tensor.shape)} and {tuple(codes.shape)}"
            )
    if dims.shape != codes.shape[:1]:
        raise ValueError(f"dims must have shape ({codes.shape[0]},), got {tuple(dims.shape)}")
    if dims.is_floating_point() or dims.is_complex() or dims.dtype == torch.bool:
        raise TypeError(f"dims must be a tensor of integers, got {dims.dtype}")
    perturbed = nn.functional.one_hot(dims.long(), codes.shape[1]).bool()
    average = (pred + pred_perturbed) / 2
    error = torch.where(perturbed, pred, average) - codes
    error_perturbed = torch.where(perturbed, pred_perturbed, average) - codes_perturbed
    per_code = error.square() + error_perturbed.square()
    return per_code.sum(1) / 2 if reduction == "official" else per_code.mean(1)


def draw_dims(codes: Tensor, chances: Tensor | None = None) -> Tensor:
    """One entry of every row of the codes, drawn at random.

    Args:
        codes: [B, K].
        chances: [K], how often each entry is drawn in proportion to the others; None draws all as often.

    Returns:
        [B], from 0 to K - 1.

    >>> draw_dims(torch.zeros(3, 2), chances=torch.tensor([0.0, 1.0]))
    tensor([1, 1, 1])
    """
    if chances is None:
        return torch.randint(codes.shape[1], (len(codes),), device=codes.device)
    # The largest chance over an exponential number. Of a single row, torch.multinomial would wait for a card.
    return (chances / chances.new_empty(codes.shape).exponential_()).argmax(1)


class PerturbedCodes(NamedTuple):
    """Codes of which one entry a row was moved."""

    codes: Tensor  # [B, K]
    dims: Tensor  # [B]


class PairedLoss(NamedTuple):
    """A loss on pairs of images, and the first image of each pair."""

    loss: Tensor  # [B]
    images: Tensor  # [B, C, H, W]


class PerceptualSimplicityLoss(nn.Module):
    """Draws a perturbation of one code a sample, generates both images and lets the recogniser read them (Eq. 8-9).

    Generator and recogniser see the pairs as one batch of 2B, so that minibatch statistics cover both halves.

    Args:
        weight: lambda, multiplies the loss.
        eps: size of the perturbation: `eps * N(0, std 2)`, or the constant `eps` where `random_eps` is False.
        random_eps: whether to draw the size at random.
        cascade_kimg: None draws the perturbed code uniformly; otherwise every sample perturbs code
            `(images seen // (1000 * cascade_kimg)) mod K`.
        reduction: how a pair's errors are put together, see `perceptual_simplicity_loss`.

    Raises:
        ValueError: an unknown reduction, or a `cascade_kimg` of less than one image.

    Example: any functions codes -> images and images -> codes will do, here of 3 codes.

    >>> ps_loss = PerceptualSimplicityLoss(weight=0.01)
    >>> generator, recognizer = nn.Linear(3, 16).requires_grad_(), nn.Linear(16, 3)
    >>> loss, images = ps_loss(generator, recognizer, torch.randn(4, 3))
    >>> loss.shape, images.shape
    (torch.Size([4]), torch.Size([4, 16]))

    Source: paper Sec. 3.2; SPEC of the authors' program, whose CelebA run has weight 0.01 and eps 3.
    """

    def __init__(
        self,
        weight: float = 1.0,
        eps: float = 3.0,
        random_eps: bool = True,
        cascade_kimg: float | None = None,
        reduction: str = "official",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, got {reduction!r}")
        if cascade_kimg is not None and int(cascade_kimg * 1000) < 1:
            raise ValueError(f"cascade_kimg must be at least 0.001, got {cascade_kimg}")
        self.weight = weight
        self.eps = eps
        self.random_eps = random_eps
        self.cascade_kimg = cascade_kimg
        self.reduction = reduction

    def perturb(self, codes: Tensor, images_seen: int = 0, chances: Tensor | None = None) -> PerturbedCodes:
        """Move one entry of every row of the codes.

        Args:
            codes: [B, K].
            images_seen: position in the training in images, for `cascade_kimg`.
            chances: [K], how often each code is moved in proportion to the others; None moves all as often.

        Returns:
            The moved codes [B, K], and which entry of each row was moved, [B].

        Raises:
            ValueError: chances where `cascade_kimg` says which code is moved.
        """
        batch, num_codes = codes.shape
        if self.cascade_kimg is not None:
            if chances is not None:
                raise ValueError(f"chances and cascade_kimg {self.cascade_kimg} both say which code is moved")
            dim = images_seen // int(self.cascade_kimg * 1000) % num_codes
            dims = torch.full((batch,), dim, device=codes.device)
        else:
            dims = draw_dims(codes, chances)
        size = codes.new_full((batch, 1), self.eps)
        if self.random_eps:
            size = size * 2 * torch.randn_like(size)
        return PerturbedCodes(codes + size * nn.functional.one_hot(dims, num_codes), dims)

    def forward(
        self,
        generator: Callable[[Tensor], Tensor],
        recognizer: Callable[[Tensor], Tensor],
        codes: Tensor,  # [B, K]
        images_seen: int = 0,
        chances: Tensor | None = None,
    ) -> PairedLoss:
        """Perturb the codes, make both images and weigh how well the recogniser tells what was moved (Eq. 8-9).

        Args:
            generator: codes [2B, K] -> images [2B, C, H, W].
            recognizer: images -> codes [2B, K].
            codes: [B, K].
            images_seen: position in the training in images, for `cascade_kimg`.
            chances: see `perturb`.

        Returns:
            The weighted loss [B], and the images [B, C, H, W] of the unperturbed codes for an adversarial loss.
        """
        perturbed = self.perturb(codes, images_seen, chances)
        images = generator(torch.cat([codes, perturbed.codes]))
        pred, pred_perturbed = recognizer(images).chunk(2)
        loss = perceptual_simplicity_loss(pred, pred_perturbed, codes, perturbed.codes, perturbed.dims, self.reduction)
        return PairedLoss(self.weight * loss, images[: len(codes)])

    def extra_repr(self) -> str:
        """The settings, as `print` shows them."""
        return (
            f"weight={self.weight}, eps={self.eps}, random_eps={self.random_eps}, "
            f"cascade_kimg={self.cascade_kimg}, reduction={self.reduction!r}"
        )


def mask_overlap(masks: Tensor) -> Tensor:
    """How much the masks of different codes cover the same places: the mean cosine between two of them.

    A generator that makes it small gives each code a region of its own, however strong the masks are.

    Args:
        masks: [N, K, H, W], not negative, of the codes of one layer.

    Returns:
        [N], from 0 (no place in common) to 1 (all masks alike, but for their strength); 0 for one code alone.

    Raises:
        ValueError: masks of another shape.

    Source: ours.

    >>> left, right = torch.tensor([[[1.0, 0.0]], [[0.0, 2.0]]])
    >>> mask_overlap(torch.stack([left, right])[None]), mask_overlap(torch.stack([left, 3 * left])[None])
    (tensor([0.]), tensor([1.]))
    """
    if masks.ndim != 4:
        raise ValueError(f"masks must be [N, K, H, W], got shape {tuple(masks.shape)}")
    count = masks.shape[1]
    units = nn.functional.normalize(masks.flatten(2), dim=2)
    # Pixel by pixel, so that masks with no place in common have 0 to the last digit.
    pairs = (units.sum(1).square() - units.square().sum(1)).sum(1)
    return pairs / max(1, count * (count - 1))


def code_regression_loss(pred: Tensor, codes: Tensor, norm: float | str = 2) -> Tensor:
    """InfoGAN's loss, the paper's baseline: distance of the recognised codes from the true ones.

    Args:
        pred: [B, K].
        codes: [B, K].
        norm: order of the vector norm of the error, not squared (2 in the authors' program), or "mse" for the mean
            squared error (the paper's wording).

    Returns:
        [B].

    Raises:
        ValueError: shapes that differ, or a norm that is neither a positive number nor "mse".
    """
    if pred.shape != codes.shape or codes.ndim != 2:
        raise ValueError(f"pred and codes must both be [B, K], got {tuple(pred.shape)} and {tuple(codes.shape)}")
    error = pred - codes
    if norm == "mse":
        return error.square().mean(1)
    if isinstance(norm, str) or not norm > 0:
        raise ValueError(f"norm must be a positive number or 'mse', got {norm!r}")
    return torch.linalg.vector_norm(error, ord=norm, dim=1)


def information_bottleneck_loss(
    pred: Tensor, z: Tensor, mean: Tensor, log_var: Tensor, alpha: float = 1.0, beta: float = 0.141
) -> Tensor:
    """IB-GAN's loss: images shall tell much of z, by a lower bound, and codes little, by an upper one.

    `alpha (|z - pred|^2 - |z|^2) / 2 + beta KL(N(mean, var) || N(0, 1))`, in nats.

    Args:
        pred: [B, Z], what the recogniser reads in the images.
        z: [B, Z], normal random numbers.
        mean: [B, K], of the codes that stand for z.
        log_var: [B, K], the logarithm of their variance.
        alpha: weight of the first term.
        beta: weight of the second; the default is the authors' for dSprites.

    Returns:
        [B].

    Raises:
        ValueError: shapes that differ.

    Source: Jeon et al., IB-GAN (2021), and its authors' program.
    """
    for name, first, second in (("pred and z", pred, z), ("mean and log_var", mean, log_var)):
        if first.shape != second.shape or first.ndim != 2:
            raise ValueError(f"{name} must be of one shape [B, n]: got {tuple(first.shape)} and {tuple(second.shape)}")
    told = ((z - pred).square() - z.square()).sum(1) / 2
    divergence = (mean.square() + log_var.exp() - 1 - log_var).sum(1) / 2
    return alpha * told + beta * divergence


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating logistic loss `softplus(-D(fake))` of the generator.

    Args:
        fake_logits: what the discriminator makes of generated images, of any shape.

    Returns:
        Losses of the same shape.

    Source: SPEC, losses and training.
    """
    return nn.functional.softplus(-fake_logits)


def discriminator_loss(fake_logits: Tensor, real_logits: Tensor) -> Tensor:
    """Logistic loss `softplus(D(fake)) + softplus(-D(real))` of the discriminator.

    Args:
        fake_logits: what it makes of generated images, of any shape.
        real_logits: what it makes of real images, of the same shape.

    Returns:
        Losses of the same shape.

    Source: SPEC, losses and training.
    """
    return nn.functional.softplus(fake_logits) + nn.functional.softplus(-real_logits)


def r1_penalty(discriminator: Callable[[Tensor], Tensor], reals: Tensor, gamma: float) -> Tensor:
    """Gradient penalty on real images, `gamma / 2 * |grad D|^2` of every image.

    Args:
        discriminator: images [B, C, H, W] -> logits of any shape.
        reals: [B, C, H, W].
        gamma: weight of the penalty.

    Returns:
        The penalty of each image, [B]; it can be differentiated.

    Source: SPEC, losses and training.
    """
    reals = reals.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(reals).sum(), reals, create_graph=True)
    return gamma / 2 * gradient.square().sum((1, 2, 3))
