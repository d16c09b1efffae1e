"""The formulas one by one."""

from __future__ import annotations

import pytest
import torch

from sc_layers import functional as F
from tests.tolerances import SAME_FORMULA


def _constrict_code_by_code(x, logits_h, logits_w, scale, bias, mask_gain, eps):
    """Eq. 3-7 as they stand, one code after the other, as the authors' program does it."""
    x_hat = (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), keepdim=True, correction=0) + eps).sqrt()
    for k in range(scale.shape[1]):
        rectangles = []
        for j in range(logits_h.shape[2]):
            bands = []
            for logits in (logits_h, logits_w):
                start, end = logits[:, k, j, 0].softmax(-1).cumsum(-1), logits[:, k, j, 1].softmax(-1).cumsum(-1)
                bands.append(start * (1 - end))
            rectangles.append(bands[0][:, :, None] * bands[1][:, None, :])
        mask = torch.stack(rectangles).mean(0)[:, None]
        if mask_gain is not None:
            mask = mask * mask_gain[k]
        styled = x_hat * scale[:, k, :, None, None] + bias[:, k, :, None, None]
        x = x * (1 - mask) + styled * mask
    return x


def _arguments(n=2, c=5, h=6, w=7, k=3, j=2, dtype=torch.float64, gain=True):
    return (
        torch.randn(n, c, h, w, dtype=dtype),
        torch.randn(n, k, j, 2, h, dtype=dtype) * 2,
        torch.randn(n, k, j, 2, w, dtype=dtype) * 2,
        torch.randn(n, k, c, dtype=dtype),
        torch.randn(n, k, c, dtype=dtype),
        torch.rand(k, dtype=dtype) if gain else None,
    )


@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("sizes", [{}, {"k": 1, "j": 1}, {"h": 1, "w": 1}, {"n": 1, "c": 1, "k": 7}])
def test_collapsed_group_equals_codes_applied_in_order(sizes: dict, gain: bool) -> None:
    arguments = _arguments(**sizes, gain=gain)
    expected = _constrict_code_by_code(*arguments, 1e-8)
    torch.testing.assert_close(F.constrict(*arguments), expected, **SAME_FORMULA[torch.float64])


def test_cumax_is_a_soft_step() -> None:
    step = F.cumax(torch.tensor([-9.0, -9.0, 30.0, -9.0]))
    torch.testing.assert_close(step, torch.tensor([0.0, 0.0, 1.0, 1.0]))
    along_rows = F.cumax(torch.randn(3, 4), dim=0)
    torch.testing.assert_close(along_rows[-1], torch.ones(4))
    assert (along_rows.diff(dim=0) >= 0).all()


def test_band_gate_opens_at_start_and_closes_at_end() -> None:
    start = torch.tensor([0.0, 40.0, 0.0, 0.0, 0.0])
    end = torch.tensor([0.0, 0.0, 0.0, 40.0, 0.0])
    torch.testing.assert_close(F.band_gate(start, end), torch.tensor([0.0, 1.0, 1.0, 0.0, 0.0]))


def test_masks_are_in_the_unit_interval_to_the_last_digit() -> None:
    logits_h, logits_w = (torch.randn(64, 3, 4, 2, 33, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    softmaxes = logits_h.softmax(-1).cumsum(-1)
    assert softmaxes.max() > 1  # so it is by rounding
    masks = F.rectangle_masks(logits_h, logits_w)
    assert 0 <= masks.min() < masks.max() <= 1


def test_rectangle_masks_average_the_rectangles() -> None:
    logits_h, logits_w = torch.randn(1, 1, 2, 2, 4), torch.randn(1, 1, 2, 2, 5)
    masks = [F.rectangle_masks(logits_h[:, :, j : j + 1], logits_w[:, :, j : j + 1]) for j in range(2)]
    torch.testing.assert_close(F.rectangle_masks(logits_h, logits_w), (masks[0] + masks[1]) / 2)
    assert masks[0].shape == (1, 1, 4, 5)


def test_last_row_and_column_of_a_mask_are_zero() -> None:
    masks = F.rectangle_masks(torch.randn(2, 3, 4, 2, 6), torch.randn(2, 3, 4, 2, 6))
    assert masks[..., -1, :].abs().max() < 1e-6
    assert masks[..., -1].abs().max() < 1e-6


def test_blend_weights_sum_to_one() -> None:
    keep, weights = F.blend_weights(torch.rand(2, 5, 3, 4))
    torch.testing.assert_close(keep + weights.sum(1), torch.ones(2, 3, 4))


@pytest.mark.parametrize("value", [0.0, 1e4, -3.7])
def test_constant_plane_normalises_to_zero(value: float) -> None:
    x = torch.full((2, 3, 7, 5), value)
    rounding_of_mean = 2e-7 * abs(value)
    for impl in ("fused", "reference"):
        mean, rstd = F.statistics(x, 1e-8, impl)
        assert ((x - mean[:, :, None, None]) * rstd[:, :, None, None]).abs().max() <= rounding_of_mean * 1e4


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_statistics_are_the_mean_and_the_reciprocal_deviation(impl: str) -> None:
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    mean, rstd = F.statistics(x, 1e-3, impl)
    variance, expected = torch.var_mean(x, (2, 3), correction=0)
    torch.testing.assert_close(mean, expected, **SAME_FORMULA[torch.float64])
    torch.testing.assert_close(rstd, (variance + 1e-3).rsqrt(), **SAME_FORMULA[torch.float64])


@pytest.mark.parametrize("impl", ["fused", "reference"])
def test_known_statistics_change_neither_the_result_nor_the_gradient(impl: str) -> None:
    arguments = _arguments()
    x = arguments[0].requires_grad_()
    results = []
    for known in (None, F.statistics(x, 1e-8, impl)):
        y = F.constrict(*arguments, impl=impl, statistics=known)
        results.append((y, *torch.autograd.grad(y.pow(3).sum(), [x], retain_graph=True)))
    for without, with_known in zip(*results, strict=True):
        torch.testing.assert_close(with_known, without, **SAME_FORMULA[torch.float64])


def test_statistics_name_bad_input() -> None:
    with pytest.raises(TypeError, match=r"x must be a floating-point tensor, got torch.int64"):
        F.statistics(torch.zeros(2, 3, 4, 4, dtype=torch.long))
    with pytest.raises(
        ValueError, match=r"x must be \[N, C, H, W\] and only the batch may be empty, got shape \(2, 0, 4, 4\)"
    ):
        F.statistics(torch.zeros(2, 0, 4, 4))


def test_spatial_constriction_is_pooling_projection_styles_and_constriction() -> None:
    n, c, h, w, k, j = 2, 5, 6, 7, 3, 2
    x, codes = torch.randn(n, c, h, w).double(), torch.randn(n, k).double()
    gate_h, gate_w = torch.randn(k, j, 2, h, c).double(), torch.randn(k, j, 2, w, c).double()
    weight, bias, gain = torch.randn(k, 2, c).double(), torch.randn(k, 2, c).double(), torch.rand(k).double()
    pooled = x.mean((2, 3)) / c**0.5
    logits_h = torch.einsum("nc,kjshc->nkjsh", pooled, gate_h)
    logits_w = torch.einsum("nc,kjswc->nkjsw", pooled, gate_w)
    scale = 1 + codes[:, :, None] * weight[:, 0] + bias[:, 0]
    shift = codes[:, :, None] * weight[:, 1] + bias[:, 1]
    expected = _constrict_code_by_code(x, logits_h, logits_w, scale, shift, gain, 1e-8)
    for impl in ("fused", "reference"):
        results = F.spatial_constriction(x, codes, gate_h, gate_w, weight, bias, gain, impl=impl)
        for actual, truth in zip(results, (expected, logits_h, logits_w), strict=True):
            torch.testing.assert_close(actual, truth, **SAME_FORMULA[torch.float64])


@pytest.mark.parametrize(
    ("position", "replacement", "error", "message"),
    [
        (0, torch.zeros(2, 5, 6), ValueError, r"x must be \[N, C, H, W\], got shape \(2, 5, 6\)"),
        (1, torch.zeros(2, 4), ValueError, r"codes must have shape \(2, 3\) .*, got \(2, 4\)"),
        (2, torch.zeros(3, 2, 6, 5), ValueError, r"gate_weight_h must be \[K, J, 2, H, C\], got shape \(3, 2, 6, 5\)"),
        (3, torch.zeros(3, 2, 2, 6, 5), ValueError, r"gate_weight_w must have shape \(3, 2, 2, 7, 5\)"),
        (4, torch.zeros(3, 2, 5, dtype=torch.int32), TypeError, "style_weight must be a floating-point tensor"),
        (5, torch.zeros(3, 2, 5, device="meta"), ValueError, "x is on cpu, style_bias on meta"),
        (6, torch.zeros(2), ValueError, r"mask_gain must have shape \(3,\)"),
    ],
)
def test_spatial_constriction_names_bad_input(position: int, replacement: torch.Tensor, error, message: str) -> None:
    sizes = [(2, 5, 6, 7), (2, 3), (3, 2, 2, 6, 5), (3, 2, 2, 7, 5), (3, 2, 5), (3, 2, 5), (3,)]
    arguments = [torch.zeros(size) for size in sizes]
    arguments[position] = replacement
    with pytest.raises(error, match=message):
        F.spatial_constriction(*arguments)


def test_empty_batch_gives_an_empty_result() -> None:
    assert F.constrict(*_arguments(n=0)).shape == (0, 5, 6, 7)


@pytest.mark.parametrize(
    ("position", "replacement", "error", "message"),
    [
        (0, torch.zeros(2, 5, 6), ValueError, r"x must be \[N, C, H, W\], got shape \(2, 5, 6\)"),
        (1, torch.zeros(2, 3, 2, 6), ValueError, r"gate_logits_h must be \[N, K, J, 2, H\]"),
        (2, torch.zeros(2, 3, 2, 2, 6), ValueError, r"gate_logits_w must have shape \(2, 3, 2, 2, 7\)"),
        (3, torch.zeros(2, 4, 5), ValueError, r"scale must have shape \(2, 3, 5\)"),
        (
            4,
            torch.zeros(2, 3, 5, dtype=torch.int32),
            TypeError,
            "bias must be a floating-point tensor, got torch.int32",
        ),
        (5, torch.zeros(2), ValueError, r"mask_gain must have shape \(3,\)"),
        (4, torch.zeros(2, 3, 5, device="meta"), ValueError, "x is on cpu, bias on meta"),
    ],
)
def test_constrict_names_bad_input(position: int, replacement: torch.Tensor, error, message: str) -> None:
    arguments = list(_arguments(dtype=torch.float32))
    arguments[position] = replacement
    with pytest.raises(error, match=message):
        F.constrict(*arguments)


def test_constrict_names_an_unknown_implementation() -> None:
    with pytest.raises(ValueError, match="impl must be one of auto, fused, reference, got 'cuda'"):
        F.constrict(*_arguments(), impl="cuda")
