"""The perceptual simplicity loss and its companions against the authors' program and against Eq. 8-9."""

from __future__ import annotations

import pytest
import torch

from sc_layers import PerceptualSimplicityLoss, perceptual_simplicity_loss
from sc_layers.losses import (
    code_regression_loss,
    discriminator_loss,
    generator_loss,
    information_bottleneck_loss,
    mask_overlap,
    r1_penalty,
)
from tests.golden import load_golden
from tests.tolerances import GOLDEN_LAYER_RELATIVE, assert_close_to_largest


@pytest.mark.parametrize("tag", ["lam1", "lam001"])
def test_ps_loss_and_gradients_match_authors_program(tag: str) -> None:
    golden = load_golden("loss_calc")
    pred, pred_perturbed = golden["ps_reg1"].requires_grad_(), golden["ps_reg2"].requires_grad_()
    loss = golden.config["ps_lambdas"][tag] * perceptual_simplicity_loss(
        pred, pred_perturbed, golden["ps_latents"], golden["ps_delta_latents"], golden["ps_dims"]
    )
    loss.sum().backward()
    assert_close_to_largest(loss, golden[f"ps_loss_{tag}"], GOLDEN_LAYER_RELATIVE, "loss")
    assert_close_to_largest(pred.grad, golden[f"ps_grad_reg1_{tag}"], GOLDEN_LAYER_RELATIVE, "gradient")
    assert_close_to_largest(pred_perturbed.grad, golden[f"ps_grad_reg2_{tag}"], GOLDEN_LAYER_RELATIVE, "gradient")


@pytest.mark.parametrize("tag", ["l2", "l1", "l3"])
def test_code_regression_matches_authors_program(tag: str) -> None:
    golden = load_golden("loss_calc")
    settings = golden.config["regress"][tag]
    pred = golden["ps_reg1"].requires_grad_()
    loss = settings["C_lambda"] * code_regression_loss(pred, golden["ps_latents"], settings["norm_ord"])
    loss.sum().backward()
    assert_close_to_largest(loss, golden[f"reg_loss_{tag}"], GOLDEN_LAYER_RELATIVE, "loss")
    assert_close_to_largest(pred.grad, golden[f"reg_grad_{tag}"], GOLDEN_LAYER_RELATIVE, "gradient")


def _pairs(batch: int = 4, num_codes: int = 3) -> tuple[torch.Tensor, ...]:
    codes, dims = torch.randn(batch, num_codes), torch.randint(num_codes, (batch,))
    moved = codes + torch.nn.functional.one_hot(dims, num_codes) * torch.randn(batch, 1)
    return torch.randn(batch, num_codes), torch.randn(batch, num_codes), codes, moved, dims


def test_paper_reduction_is_equation_8_and_9() -> None:
    pred, pred_moved, codes, moved, dims = _pairs()
    loss = perceptual_simplicity_loss(pred, pred_moved, codes, moved, dims, reduction="paper")
    for b in range(len(codes)):
        total = 0.0
        for i in range(codes.shape[1]):
            if i == dims[b]:
                total += (pred[b, i] - codes[b, i]) ** 2 + (pred_moved[b, i] - moved[b, i]) ** 2
            else:
                total += 2 * ((pred[b, i] + pred_moved[b, i]) / 2 - codes[b, i]) ** 2
        torch.testing.assert_close(loss[b], total / codes.shape[1])


def test_official_reduction_is_half_the_number_of_codes_times_the_papers() -> None:
    arguments = _pairs(num_codes=5)
    official = perceptual_simplicity_loss(*arguments)
    torch.testing.assert_close(official, 5 / 2 * perceptual_simplicity_loss(*arguments, reduction="paper"))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"pred": torch.zeros(4, 2)}, ValueError, r"pred must have the shape .* got \(4, 2\) and \(4, 3\)"),
        ({"dims": torch.zeros(3, dtype=torch.long)}, ValueError, r"dims must have shape \(4,\), got \(3,\)"),
        ({"dims": torch.zeros(4)}, TypeError, "dims must be a tensor of integers, got torch.float32"),
        ({"reduction": "mean"}, ValueError, "reduction must be one of official, paper, got 'mean'"),
    ],
)
def test_ps_loss_names_bad_input(change: dict, error: type[Exception], message: str) -> None:
    names = ("pred", "pred_perturbed", "codes", "codes_perturbed", "dims")
    with pytest.raises(error, match=message):
        perceptual_simplicity_loss(**(dict(zip(names, _pairs(), strict=True)) | change))


def test_perturbation_moves_exactly_the_named_code() -> None:
    codes = torch.randn(256, 6)
    moved, dims = PerceptualSimplicityLoss(eps=3.0).perturb(codes)
    changed = moved != codes
    assert torch.equal(changed.nonzero()[:, 1], dims)
    assert changed.sum(1).eq(1).all()
    assert set(dims.tolist()) == set(range(6))


def test_random_perturbation_has_std_of_twice_eps() -> None:
    codes = torch.zeros(20000, 2)
    moved, _ = PerceptualSimplicityLoss(eps=0.4).perturb(codes)
    assert abs(moved.sum(1).std().item() - 0.8) < 0.02
    assert abs(moved.sum(1).mean().item()) < 0.02


def test_constant_perturbation_is_eps() -> None:
    moved, _ = PerceptualSimplicityLoss(eps=0.4, random_eps=False).perturb(torch.zeros(8, 2))
    torch.testing.assert_close(moved.sum(1), torch.full((8,), 0.4))


@pytest.mark.parametrize(("images_seen", "dim"), [(0, 0), (1999, 0), (2000, 1), (6000, 0)])
def test_cascade_perturbs_codes_in_turn(images_seen: int, dim: int) -> None:
    _, dims = PerceptualSimplicityLoss(cascade_kimg=2).perturb(torch.zeros(5, 3), images_seen)
    assert dims.eq(dim).all()


def test_masks_overlap_by_the_mean_cosine_of_their_pairs() -> None:
    masks = torch.rand(5, 4, 6, 7)
    flat = masks.flatten(2)
    cosines = [torch.cosine_similarity(flat[:, i], flat[:, j]) for i in range(4) for j in range(i)]
    torch.testing.assert_close(mask_overlap(masks), torch.stack(cosines).mean(0))
    assert mask_overlap(masks[:, :1]).tolist() == [0.0] * 5


def test_overlap_knows_no_strength_and_bears_empty_masks() -> None:
    masks = torch.rand(2, 3, 4, 4)
    strength = torch.tensor([0.01, 1.0, 5.0])[:, None, None]
    torch.testing.assert_close(mask_overlap(masks * strength), mask_overlap(masks))
    empty = torch.zeros(2, 3, 4, 4, requires_grad=True)
    mask_overlap(empty).sum().backward()
    assert empty.grad.isfinite().all()


def test_masks_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"masks must be \[N, K, H, W\], got shape \(3, 4, 4\)"):
        mask_overlap(torch.rand(3, 4, 4))


def test_codes_are_perturbed_by_their_chances() -> None:
    chances = torch.tensor([0.0, 0.5, 1.0])
    _, dims = PerceptualSimplicityLoss().perturb(torch.zeros(3_000, 3), chances=chances)
    assert not dims.eq(0).any()
    assert 0.28 < dims.eq(1).float().mean() < 0.38


def test_cascade_takes_no_chances() -> None:
    with pytest.raises(ValueError, match="chances and cascade_kimg 2 both say which code is moved"):
        PerceptualSimplicityLoss(cascade_kimg=2).perturb(torch.zeros(5, 3), chances=torch.ones(3))


def test_module_runs_both_networks_once_on_the_pairs() -> None:
    seen: list[torch.Size] = []

    def generator(codes: torch.Tensor) -> torch.Tensor:
        seen.append(codes.shape)
        return codes[:, :, None, None]

    def recognizer(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.shape)
        return images[:, :, 0, 0]

    codes = torch.randn(4, 3)
    loss, images = PerceptualSimplicityLoss(weight=2.0)(generator, recognizer, codes)
    assert seen == [(8, 3), (8, 3, 1, 1)]
    assert torch.equal(images[:, :, 0, 0], codes)
    assert loss.shape == (4,)
    # A recogniser that reads the codes exactly is right on the perturbed code and on the average of the others.
    torch.testing.assert_close(loss, torch.zeros(4))


def test_adversarial_losses_are_the_logistic_ones() -> None:
    fake, real = torch.randn(5, 1), torch.randn(5, 1)
    torch.testing.assert_close(generator_loss(fake), -torch.sigmoid(fake).log())
    expected = -(1 - torch.sigmoid(fake)).log() - torch.sigmoid(real).log()
    torch.testing.assert_close(discriminator_loss(fake, real), expected)


def test_the_bottleneck_loss_is_that_of_the_authors_of_ib_gan() -> None:
    draws = torch.Generator().manual_seed(0)
    z, pred = torch.randn(2, 4, 16, generator=draws, dtype=torch.float64)
    mean, log_var = torch.randn(2, 4, 10, generator=draws, dtype=torch.float64)
    # What their solver.py gives: `alpha (-obj_recon) + beta obj_kld`.
    loss = information_bottleneck_loss(pred, z, mean, log_var, alpha=1.0, beta=0.141)
    assert loss.mean().item() == pytest.approx(5.751416014276864, rel=1e-12)
    # What is read rightly tells the entropy of z; codes that follow the prior cost nothing.
    nothing = information_bottleneck_loss(z, z, torch.zeros(4, 10), torch.zeros(4, 10), alpha=2.0, beta=3.0)
    torch.testing.assert_close(nothing, -z.square().sum(1))
    with pytest.raises(ValueError, match=r"pred and z must be of one shape \[B, n\]: got \(4, 16\) and \(4, 15\)"):
        information_bottleneck_loss(pred, z[:, 1:], mean, log_var)


def test_r1_penalty_of_a_linear_discriminator() -> None:
    weight = torch.randn(3, 4, 4)
    penalty = r1_penalty(lambda x: (x * weight).sum((1, 2, 3)), torch.randn(2, 3, 4, 4), gamma=10.0)
    torch.testing.assert_close(penalty, (5 * weight.square().sum()).expand(2))


def test_code_regression_names_an_unknown_norm() -> None:
    with pytest.raises(ValueError, match="norm must be a positive number or 'mse', got 'l2'"):
        code_regression_loss(torch.zeros(1, 2), torch.zeros(1, 2), norm="l2")
