"""The fused operator against the same formula in plain PyTorch: values and gradients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sc_layers import functional as F
from sc_layers.ops import loading
from tests import test_layers
from tests.golden import load_golden
from tests.ops.samples import (
    EPS,
    assert_about_as_exact_as_plain,
    layer_inputs,
    layer_result_and_gradients,
    result_and_gradients,
    sample_inputs,
    weights_for,
)
from tests.tolerances import GOLDEN_LAYER_RELATIVE, OFFSET_DEVIATION, OFFSET_MEAN, assert_close_to_largest

LAYOUTS = [torch.contiguous_format, torch.channels_last]
HALVES = [torch.float16, torch.bfloat16]
# Fraction of the largest entry.
LIMIT = {torch.float64: 1e-12, torch.float32: 2e-5}
# N, C, H, W, K, J: one pixel, odd sizes, one row, more codes than channels, many codes, whole vectors, several strips.
GRID = [
    (1, 1, 1, 1, 1, 1),
    (3, 5, 7, 9, 5, 4),
    (2, 35, 13, 3, 2, 1),
    (2, 40, 1, 33, 4, 16),
    (1, 3, 4, 4, 64, 1),
    (2, 16, 8, 8, 5, 4),
    (1, 18, 40, 50, 7, 3),
    (1, 300, 5, 3, 3, 2),
]


@pytest.fixture(params=loading.INSTRUCTION_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this processor has, in use."""
    try:
        loading.use_instruction_set(request.param)
    except ValueError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    loading.use_instruction_set("")


def _assert_equal(ours: list[torch.Tensor], reference: list[torch.Tensor], limit: float) -> None:
    for i, (actual, expected) in enumerate(zip(ours, reference, strict=True)):
        assert actual.dtype == expected.dtype
        assert_close_to_largest(actual, expected, limit, f"result {i}")


def _assert_twins_agree(inputs: list[torch.Tensor | None], limit: float) -> None:
    _assert_equal(*(result_and_gradients(inputs, impl) for impl in ("fused", "reference")), limit)


def _assert_layer_twins_agree(inputs: list[torch.Tensor | None], limit: float) -> None:
    _assert_equal(*(layer_result_and_gradients(inputs, impl) for impl in ("fused", "reference")), limit)


@pytest.mark.parametrize("sizes", GRID)
@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", LIMIT)
def test_values_and_gradients_equal_the_reference(
    dtype: torch.dtype, layout: torch.memory_format, gain: bool, sizes: tuple[int, ...]
) -> None:
    _assert_twins_agree(sample_inputs(*sizes, dtype=dtype, gain=gain, memory_format=layout), LIMIT[dtype])


@pytest.mark.parametrize("sizes", GRID)
@pytest.mark.parametrize("gain", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", LIMIT)
def test_layer_and_gradients_equal_the_reference(
    dtype: torch.dtype, layout: torch.memory_format, gain: bool, sizes: tuple[int, ...]
) -> None:
    _assert_layer_twins_agree(layer_inputs(*sizes, dtype=dtype, gain=gain, memory_format=layout), LIMIT[dtype])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layer_taken_in_chunks_of_samples_equals_the_reference(layout: torch.memory_format) -> None:
    # 25 MB of float64 features and gradients: more than are taken through the steps together.
    inputs = layer_inputs(6, 65, 64, 63, 3, 2, dtype=torch.float64, memory_format=layout)
    _assert_layer_twins_agree(inputs, LIMIT[torch.float64])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", LIMIT)
def test_every_instruction_set_equals_the_reference(
    instruction_set: str, dtype: torch.dtype, layout: torch.memory_format
) -> None:
    assert loading.cpu_instruction_set() == instruction_set
    sizes = (2, 19, 7, 9, 5, 4)
    _assert_twins_agree(sample_inputs(*sizes, dtype=dtype, memory_format=layout), LIMIT[dtype])
    _assert_layer_twins_agree(layer_inputs(*sizes, dtype=dtype, memory_format=layout), LIMIT[dtype])


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, limit) for limit in (3, 40, 20, 20, 9, 5))),
    gain=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 1000),
)
def test_any_shape_equals_the_reference(
    sizes: tuple[int, ...], gain: bool, layout: torch.memory_format, seed: int
) -> None:
    inputs = sample_inputs(*sizes, gain=gain, memory_format=layout, seed=seed, dtype=torch.float64)
    # Two pixels may be nearly equal by chance: without a larger eps the result would depend on the last bit.
    _assert_equal(*(result_and_gradients(inputs, impl, eps=1e-3) for impl in ("fused", "reference")), 1e-10)
    inputs = layer_inputs(*sizes, gain=gain, memory_format=layout, seed=seed, dtype=torch.float64)
    _assert_equal(*(layer_result_and_gradients(inputs, impl, eps=1e-3) for impl in ("fused", "reference")), 1e-10)


LARGE_SIZES = st.tuples(*(st.integers(1, limit) for limit in (3, 80, 40, 40, 64, 16)))


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@given(
    sizes=LARGE_SIZES,
    dtype=st.sampled_from([torch.float64, torch.float32]),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 1000),
)
def test_large_sweep_of_shapes(
    sizes: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, seed: int
) -> None:
    limit = {torch.float64: 1e-10, torch.float32: 1e-4}[dtype]
    inputs = sample_inputs(*sizes, memory_format=layout, seed=seed, dtype=dtype)
    exact = [None if tensor is None else tensor.detach().double().requires_grad_() for tensor in inputs]
    ours, plain = (result_and_gradients(inputs, impl, eps=1e-3) for impl in ("fused", "reference"))
    truth = result_and_gradients(exact, "reference", eps=1e-3)
    for actual, rival, expected in zip(ours, plain, truth, strict=True):
        # Sums of random terms may cancel: where plain PyTorch is far off as well, the largest entry is no measure.
        allowed = max(limit * expected.abs().max().item(), 4 * (rival - expected).abs().max().item())
        assert (actual - expected).abs().max().item() <= allowed


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(sizes=LARGE_SIZES, dtype=st.sampled_from(HALVES), layout=st.sampled_from(LAYOUTS), seed=st.integers(0, 1000))
def test_large_sweep_of_shapes_in_half_precision(
    sizes: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, seed: int
) -> None:
    inputs = sample_inputs(*sizes, memory_format=layout, seed=seed, dtype=dtype)
    results = result_and_gradients(inputs, "fused", eps=1e-3)
    assert_about_as_exact_as_plain(results, inputs, weights_for(results[0]), eps=1e-3)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("sizes", [(2, 9, 7, 9, 5, 4), (1, 20, 16, 16, 3, 2)])
def test_half_precision_is_about_as_exact_as_plain_pytorch(
    sizes: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    inputs = sample_inputs(*sizes, dtype=dtype, memory_format=layout)
    results = result_and_gradients(inputs, "fused")
    assert_about_as_exact_as_plain(results, inputs, weights_for(results[0]))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.usefixtures("instruction_set")
def test_half_precision_conversions_are_exact(dtype: torch.dtype) -> None:
    # A gain of 0 makes the operator the identity, so every finite half comes back; eight by eight pixels a plane.
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)
    values = values[values.isfinite()]
    values = values[: len(values) // 64 * 64].view(-1, 1, 8, 8)
    n = values.shape[0]
    zeros = torch.zeros(n, 1, 1, 2, 8)
    y = F.constrict(values, zeros, zeros, torch.ones(n, 1, 1), torch.ones(n, 1, 1), torch.zeros(1), impl="fused")
    small = values.abs() < 1e15  # the variance of larger ones overflows float32
    planes = small.flatten(1).all(1)
    assert torch.equal(y[planes], values[planes])


@pytest.mark.parametrize("case", test_layers.GROUP_CASES)
def test_authors_numbers_through_the_fused_path(case: str) -> None:
    golden = load_golden(case)
    layer = test_layers._layer_from_golden(golden)
    layer.impl = "fused"
    start = golden.config["start_idx"]
    x, latents = golden["x"].requires_grad_(), golden["latents"].requires_grad_()
    y = layer(x, latents[:, start : start + layer.num_codes])
    assert_close_to_largest(y, golden["out"], GOLDEN_LAYER_RELATIVE)
    grads = torch.autograd.grad((y * golden["R"]).sum(), [x, latents])
    for name, grad in zip(("x", "latents"), grads, strict=True):
        assert_close_to_largest(grad, golden[f"grad/{name}"], GOLDEN_LAYER_RELATIVE, name)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_result_does_not_depend_on_the_number_of_threads(layout: torch.memory_format) -> None:
    before = torch.get_num_threads()
    # Of the kernels: the layer's gate projection is a product that PyTorch's library splits over threads as it likes.
    inputs = sample_inputs(3, 37, 40, 33, 5, 4, memory_format=layout)
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            results.append(result_and_gradients(inputs, "fused"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [0.1, -1234.5])
def test_constant_plane_is_normalised_to_exactly_zero(
    value: float, layout: torch.memory_format, dtype: torch.dtype
) -> None:
    inputs = sample_inputs(1, 5, 7, 9, 2, 1, dtype=dtype, memory_format=layout, requires_grad=False)
    x = torch.full_like(inputs[0], value)
    mean, rstd = F.statistics(x, EPS, "fused")
    y = F.constrict(x, *inputs[1:], impl="fused")
    assert (mean == x[:, :, 0, 0]).all()
    torch.testing.assert_close(rstd, torch.full_like(rstd, EPS**-0.5))
    # Scale has nothing to act on: the result is that of scale 0.
    without_scale = F.constrict(x, *inputs[1:3], inputs[3] * 0, *inputs[4:], impl="fused")
    assert torch.equal(y, without_scale)


def test_statistics_survive_a_large_offset() -> None:
    torch.manual_seed(0)
    for layout in LAYOUTS:
        x = (10_001 + 2 * torch.randn(4, 35, 32, 32)).contiguous(memory_format=layout)
        mean, rstd = F.statistics(x, EPS, "fused")
        variance, expected = torch.var_mean(x.double(), (2, 3), correction=0)
        torch.testing.assert_close(mean.double(), expected, **OFFSET_MEAN)
        torch.testing.assert_close(rstd.double(), variance.rsqrt(), **OFFSET_DEVIATION)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_output_and_gradient_keep_the_layout_of_the_input(layout: torch.memory_format) -> None:
    inputs = sample_inputs(memory_format=layout)
    y = F.constrict(*inputs, impl="fused")
    (grad,) = torch.autograd.grad(y.sum(), [inputs[0]])
    assert y.stride() == grad.stride() == inputs[0].stride()
    layer = layer_inputs(memory_format=layout)
    y, *_ = F.spatial_constriction(*layer, impl="fused")
    (grad,) = torch.autograd.grad(y.sum(), [layer[0]])
    assert y.stride() == grad.stride() == inputs[0].stride()


def test_other_layouts_are_read_correctly() -> None:
    inputs = sample_inputs(4, 6, 8, 10, 3, 2, dtype=torch.float64)
    wide = torch.randn(4, 12, 8, 10, dtype=torch.float64)
    for x in (
        wide[:, ::2],
        wide[:, 3:9].transpose(2, 3).contiguous().transpose(2, 3),
        wide[:, :6].flip(3),
        torch.randn(4, 1, 8, 10, dtype=torch.float64).expand(4, 6, 8, 10),
    ):
        arguments = [x.detach().requires_grad_(), *inputs[1:]]
        ours, reference = (result_and_gradients(arguments, impl) for impl in ("fused", "reference"))
        for actual, expected in zip(ours, reference, strict=True):
            assert_close_to_largest(actual, expected, 1e-9)
        assert ours[0].is_contiguous()


def test_logits_and_styles_may_be_views() -> None:
    inputs = sample_inputs(2, 6, 5, 5, 3, 2, dtype=torch.float64)
    views = [inputs[0], *(t.detach().mT.contiguous().mT.requires_grad_() for t in inputs[1:5]), inputs[5]]
    for actual, expected in zip(
        result_and_gradients(views, "fused"), result_and_gradients(inputs, "fused"), strict=True
    ):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("gain", [True, False])
def test_empty_batch(gain: bool) -> None:
    inputs = sample_inputs(0, gain=gain)
    y = F.constrict(*inputs, impl="fused")
    grads = torch.autograd.grad(y.sum(), [t for t in inputs if t is not None])
    assert y.shape == inputs[0].shape
    assert [g.shape for g in grads] == [t.shape for t in inputs if t is not None]
    assert all((g == 0).all() for g in grads)


@pytest.mark.parametrize("gain", [True, False])
def test_empty_batch_of_the_layer(gain: bool) -> None:
    inputs = layer_inputs(0, gain=gain)
    y, *logits_and_grads = layer_result_and_gradients(inputs, "fused")
    assert y.shape == inputs[0].shape
    assert [t.shape for t in logits_and_grads[:2]] == [(0, 3, 2, 2, 6), (0, 3, 2, 2, 7)]
    assert [g.shape for g in logits_and_grads[2:]] == [t.shape for t in inputs if t is not None]
    assert all((g == 0).all() for g in logits_and_grads[2:])


@pytest.mark.parametrize("wanted", range(6))
def test_gradient_of_any_single_input(wanted: int) -> None:
    inputs = sample_inputs(dtype=torch.float64)
    everything = result_and_gradients(inputs, "fused")[1:]
    alone = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(inputs)]
    y = F.constrict(*alone, impl="fused")
    y.backward(weights_for(y))
    assert torch.equal(alone[wanted].grad, everything[wanted])
    assert all(t.grad is None for i, t in enumerate(alone) if i != wanted)


@pytest.mark.parametrize("wanted", range(7))
def test_gradient_of_any_single_input_of_the_layer(wanted: int) -> None:
    inputs = layer_inputs(dtype=torch.float64)
    everything = layer_result_and_gradients(inputs, "fused")[3:]
    alone = [t.detach().requires_grad_(i == wanted) for i, t in enumerate(inputs)]
    y, *logits = F.spatial_constriction(*alone, impl="fused")
    outputs = [t for t in (y, F.rectangle_masks(*logits)) if t.requires_grad]
    torch.autograd.backward(outputs, [weights_for(output) for output in outputs])
    assert torch.equal(alone[wanted].grad, everything[wanted])
    assert all(t.grad is None for i, t in enumerate(alone) if i != wanted)


def test_gradients_of_the_masks_alone_equal_the_references() -> None:
    inputs = layer_inputs(dtype=torch.float64)
    results = []
    for impl in ("fused", "reference"):
        _, *logits = F.spatial_constriction(*inputs, impl=impl)
        results.append(torch.autograd.grad(F.rectangle_masks(*logits).pow(2).sum(), [inputs[i] for i in (0, 2, 3)]))
    _assert_equal(*results, LIMIT[torch.float64])


@pytest.mark.parametrize("which", range(6))
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_input_gives_non_finite_output(value: float, which: int) -> None:
    for layout in LAYOUTS:
        inputs = sample_inputs(memory_format=layout)
        inputs[which].data.fill_(value)
        y, *grads = result_and_gradients(inputs, "fused")
        assert not y.isfinite().all()
        assert len(grads) == 6


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({0: torch.zeros(5, 6, 7)}, ValueError, r"x must be \[N, C, H, W\]"),
        ({1: torch.zeros(2, 3, 2, 6)}, ValueError, r"gate_logits_h must be \[N, K, J, 2, H\]"),
        ({2: torch.zeros(2, 4, 2, 2, 7)}, ValueError, "gate_logits_w must have shape"),
        ({3: torch.zeros(2, 4, 5)}, ValueError, "scale must have shape"),
        ({4: torch.zeros(2, 3, 6)}, ValueError, "bias must have shape"),
        ({5: torch.zeros(4)}, ValueError, "mask_gain must have shape"),
        ({0: torch.zeros(2, 5, 6, 8)}, ValueError, "must have shape"),
        ({0: torch.zeros(2, 5, 6, 7, dtype=torch.int32)}, TypeError, "x must be a floating-point tensor"),
        ({1: torch.zeros(2, 3, 2, 2, 6, dtype=torch.int64)}, TypeError, "gate_logits_h must be a floating-point"),
        ({3: torch.zeros(2, 3, 5, device="meta")}, ValueError, "one device"),
    ],
)
def test_bad_input_raises_the_documented_error(
    change: dict[int, torch.Tensor], error: type[Exception], message: str
) -> None:
    inputs = sample_inputs(requires_grad=False)
    for i, tensor in change.items():
        inputs[i] = tensor
    with pytest.raises(error, match=message):
        F.constrict(*inputs, impl="fused")


@pytest.mark.parametrize(
    "change",
    [
        {0: torch.zeros(5, 6, 7)},
        {1: torch.zeros(2, 3, 2, 6)},
        {2: torch.zeros(2, 4, 2, 2, 7)},
        {3: torch.zeros(2, 4, 5)},
        {4: torch.zeros(2, 3, 5, dtype=torch.float64)},
        {5: torch.zeros(4)},
        {0: torch.zeros(2, 5, 6, 7, dtype=torch.int32)},
        {0: torch.zeros(2, 0, 6, 7)},
    ],
)
def test_bad_input_to_the_bare_operator_raises(change: dict[int, torch.Tensor]) -> None:
    inputs = sample_inputs(requires_grad=False)
    for i, tensor in change.items():
        inputs[i] = tensor
    statistics = torch.zeros(2, 5), torch.ones(2, 5)
    with pytest.raises(RuntimeError, match=r"^sc_layers: "):
        torch.ops.sc_layers.constrict(*inputs, *statistics, EPS)


@pytest.mark.parametrize(
    "change",
    [
        {0: torch.zeros(5, 6, 7)},
        {1: torch.zeros(2, 4)},
        {2: torch.zeros(3, 2, 2, 7, 5)},
        {3: torch.zeros(3, 2, 2, 7, 5, dtype=torch.float64)},
        {4: torch.zeros(3, 2, 4)},
        {5: torch.zeros(4, 2, 5)},
        {6: torch.zeros(4)},
        {0: torch.zeros(2, 5, 6, 7, dtype=torch.int32)},
    ],
)
def test_bad_input_to_the_bare_layer_operator_raises(change: dict[int, torch.Tensor]) -> None:
    inputs = layer_inputs(requires_grad=False)
    for i, tensor in change.items():
        inputs[i] = tensor
    with pytest.raises(RuntimeError, match=r"^sc_layers: "):
        torch.ops.sc_layers.constrict_layer(*inputs, EPS)


def test_failed_allocation_is_one_line_of_an_exception() -> None:
    x = torch.zeros(1, 1, 1, 1).expand(2**20, 2**16, 1, 1)
    with pytest.raises(RuntimeError) as raised:
        torch.ops.sc_layers.statistics(x, EPS)
    assert "\n" not in str(raised.value)
