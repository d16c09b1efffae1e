"""The CUDA kernels, executed on the host by an emulation of CUDA's execution model, against the reference."""

from __future__ import annotations

import pytest
import torch

from sc_layers.functional import constrict
from tests.ops.emulation import harness
from tests.ops.emulation.cases import assert_matches_truth, results_of, truth
from tests.ops.emulation.harness import Emulator, make_gradient, make_inputs
from tests.ops.emulation.steps import shape_of
from tests.tolerances import OFFSET_COARSE_DEVIATION, SAME_FORMULA, assert_close_to_largest

pytestmark = pytest.mark.skipif(not harness.is_supported(), reason="the emulation runs on Linux")

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
LAYOUTS = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])

# n, c, h, w, k, j: planes of one pixel, odd ones, ones for a warp and for a block, codes for one row of the tables and
# for two (`keep` takes a place), rows and columns that fill no tile.
SHAPES = [
    (2, 3, 1, 1, 1, 1),
    (2, 5, 7, 9, 2, 3),
    (3, 16, 8, 8, 5, 4),
    (1, 10, 33, 31, 3, 2),
    (1, 8, 24, 40, 13, 1),
    (2, 40, 16, 20, 8, 2),
]


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(harness.compile_library())


def both_passes(emulator: Emulator, inputs, **others):
    """Everything after a forward and a backward pass, and the gradient that went into the latter."""
    grad = make_gradient(inputs)
    return emulator.backward(emulator.forward(inputs), grad, **others), grad


@DTYPES
@LAYOUTS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_results_equal_reference(emulator, shape, channels_last, dtype) -> None:
    inputs = make_inputs(*shape, dtype, channels_last, gain=True)
    assert_matches_truth(inputs, *both_passes(emulator, inputs))


@LAYOUTS
@pytest.mark.parametrize("multiprocessors", [1, 300])
def test_results_equal_reference_however_work_is_cut(emulator, multiprocessors, channels_last) -> None:
    cut = Emulator(emulator.library._name, multiprocessors)
    inputs = make_inputs(1, 72, 24, 40, 5, 4, torch.float16, channels_last)
    assert_matches_truth(inputs, *both_passes(cut, inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@LAYOUTS
def test_schedules_give_identical_results(emulator, channels_last, dtype) -> None:
    inputs = make_inputs(2, 48, 33, 20, 6, 3, dtype, channels_last, gain=True)
    runs = [
        results_of(both_passes(Emulator(emulator.library._name, schedule=schedule, seed=seed), inputs)[0])
        for schedule, seed in (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2))
    ]
    for run in runs[1:]:
        for name, result in runs[0].items():
            assert torch.equal(result, run[name]), name


@DTYPES
@LAYOUTS
def test_features_anywhere_in_memory(emulator, dtype, channels_last) -> None:
    inputs = make_inputs(2, 8, 8, 10, 2, 2, dtype, channels_last)
    x = inputs["x"]
    shifted = torch.empty(x.numel() + 3, dtype=dtype)[3:].as_strided(x.shape, x.stride())
    inputs["x"] = shifted.copy_(x)
    assert_matches_truth(inputs, *both_passes(emulator, inputs))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_statistics_anywhere_in_memory(emulator, dtype) -> None:
    inputs = make_inputs(2, 8, 8, 10, 2, 2, dtype, channels_last=True)
    state = emulator.forward(inputs)
    for name in ("mean", "rstd"):
        shifted = torch.empty(state[name].numel() + 1, dtype=state[name].dtype)[1:].view_as(state[name])
        state[name] = shifted.copy_(state[name])
    del state["workspace"]  # that of the backward pass is another one
    grad = make_gradient(inputs)
    assert_matches_truth(inputs, emulator.backward(state, grad), grad)


@pytest.mark.parametrize("shape", [(1, 6, 5, 7, 64, 1), (1, 6, 12, 12, 2, 16), (1, 6, 12, 12, 20, 16)], ids=str)
@LAYOUTS
def test_many_codes_and_rectangles(emulator, shape, channels_last) -> None:
    inputs = make_inputs(*shape, torch.float32, channels_last, gain=True)
    # Small gains: with masks of either sign and 64 codes the products would run through ten decades.
    inputs["mask_gain"] *= 0.2
    assert_matches_truth(inputs, *both_passes(emulator, inputs))


@pytest.mark.parametrize("size", [(2, 5000), (3000, 1), (3, 4100)], ids=str)
@LAYOUTS
def test_long_sides(emulator, size, channels_last) -> None:
    inputs = make_inputs(1, 4, *size, 2, 2, channels_last=channels_last)
    assert_matches_truth(inputs, *both_passes(emulator, inputs))


@LAYOUTS
def test_large_planes_are_joined_of_pieces(emulator, channels_last) -> None:
    inputs = make_inputs(1, 3, 130, 150, 2, 1, torch.float32, channels_last)
    state, grad = both_passes(emulator, inputs)
    assert emulator.launches["statistics"] == 2
    assert_matches_truth(inputs, state, grad)


@LAYOUTS
def test_float32_sums_are_as_exact_as_float32_arithmetic(emulator, channels_last) -> None:
    inputs = make_inputs(1, 64, 64, 64, 5, 4, torch.float32, channels_last)
    state, grad = both_passes(emulator, inputs)
    leaves = [None if tensor is None else tensor.clone().requires_grad_() for tensor in inputs.values()]
    names = [f"grad_{name}" for name, tensor in inputs.items() if tensor is not None]
    y = constrict(*leaves, impl="reference")
    ordinary = dict(zip(names, torch.autograd.grad(y, [t for t in leaves if t is not None], grad), strict=True))
    exact = truth(inputs, grad)
    for name, result in ordinary.items():
        error, allowed = ((t.double() - exact[name]).norm() for t in (state[name], result))
        assert error <= 4 * allowed, f"{name}: {error / allowed:.1f} times the error of float32 arithmetic"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@LAYOUTS
def test_zero_gain_leaves_features_untouched(emulator, dtype, channels_last) -> None:
    inputs = make_inputs(2, 6, 9, 10, 3, 2, dtype, channels_last, gain=True)
    inputs["mask_gain"] = torch.zeros_like(inputs["mask_gain"])
    assert torch.equal(emulator.forward(inputs)["y"], inputs["x"])


@pytest.mark.parametrize("value", [0.1, 1234.567])
@pytest.mark.parametrize("size", [(9, 13), (40, 51), (130, 131)], ids=str)
@LAYOUTS
def test_constant_plane_is_normalised_to_zero(emulator, channels_last, size, value) -> None:
    inputs = make_inputs(1, 4, *size, 2, 2, channels_last=channels_last)
    inputs["x"] = torch.full_like(inputs["x"], value)
    state = emulator.forward(inputs)
    assert torch.equal(state["mean"], inputs["x"][:, :, 0, 0])
    torch.testing.assert_close(state["rstd"], torch.full((1, 4), 1e4))


@LAYOUTS
def test_large_mean_does_not_drown_the_variance(emulator, channels_last) -> None:
    x = make_inputs(1, 4, 64, 72, 2, 2, channels_last=channels_last)["x"] * 0.01 + 1000
    variance = x.double().var((2, 3), unbiased=False)
    rstd = emulator.run("statistics", shape_of(x), {"x": x})["rstd"]
    torch.testing.assert_close(rstd, (variance + 1e-8).rsqrt().float(), **OFFSET_COARSE_DEVIATION)


def test_logits_without_a_number_stay_in_their_sample(emulator) -> None:
    inputs = make_inputs(2, 4, 8, 8, 2, 2)
    inputs["gate_logits_h"][0, 0, 0, 0, 3] = float("nan")
    y = emulator.forward(inputs)["y"]
    assert y[0].isnan().any()
    assert not y[1].isnan().any()


@LAYOUTS
def test_gradients_from_elsewhere_are_added(emulator, channels_last) -> None:
    inputs = make_inputs(2, 6, 9, 8, 3, 2, channels_last=channels_last)
    alone, _ = both_passes(emulator, inputs)
    added = {f"added_{name}": torch.randn_like(inputs[name]) for name in ("gate_logits_h", "gate_logits_w")}
    grad_mean = torch.randn(2, 6)
    state, _ = both_passes(emulator, inputs, **added, grad_mean=grad_mean)
    for name in ("gate_logits_h", "gate_logits_w"):
        torch.testing.assert_close(state[f"grad_{name}"], alone[f"grad_{name}"] + added[f"added_{name}"])
    expected = alone["grad_x"] + (grad_mean / 72)[:, :, None, None]
    torch.testing.assert_close(state["grad_x"], expected, **SAME_FORMULA[torch.float32])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_styles_and_their_gradients(emulator, dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    sizes = {"codes": (3, 5), "style_weight": (5, 2, 70), "style_bias": (5, 2, 70)}
    sizes |= {"grad_scale": (3, 5, 70), "grad_bias": (3, 5, 70)}
    tensors = {name: torch.randn(size, generator=generator, dtype=dtype) for name, size in sizes.items()}
    shape = shape_of(torch.empty(3, 70, 4, 4, dtype=dtype), 5, 1)
    leaves = [tensors[name].requires_grad_() for name in ("codes", "style_weight", "style_bias")]
    styles = leaves[0][:, :, None, None] * leaves[1] + leaves[2]
    grad = torch.stack([tensors["grad_scale"], tensors["grad_bias"]], dim=2)
    expected = torch.autograd.grad(styles, leaves, grad)
    tensors = {name: tensor.detach() for name, tensor in tensors.items()}
    forward = emulator.run("styles", shape, {name: tensors[name] for name in ("codes", "style_weight", "style_bias")})
    assert_close_to_largest(forward["scale"], 1 + styles[:, :, 0].detach(), 1e-6)
    assert_close_to_largest(forward["bias"], styles[:, :, 1].detach(), 1e-6)
    backward = emulator.run("styles_backward", shape, tensors)
    for name, gradient in zip(("grad_codes", "grad_style_weight", "grad_style_bias"), expected, strict=True):
        assert_close_to_largest(backward[name], gradient, 1e-6, name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@LAYOUTS
def test_every_pass_reads_and_writes_features_once(emulator, dtype, channels_last) -> None:
    inputs = make_inputs(1, 64, 64, 64, 5, 4, dtype, channels_last)
    features = inputs["x"].numel() * inputs["x"].element_size()
    shape = shape_of(inputs["x"], 5, 4)
    state = emulator.run("statistics", shape, inputs)
    assert emulator.counts["x"].read == features
    state = emulator.run("apply", shape, state)
    assert (emulator.counts["x"].read, emulator.counts["y"].written) == (features, features)
    del state["workspace"]  # that of the backward pass is another one
    state = emulator.run("backward_sums", shape, {**state, "grad": make_gradient(inputs)})
    assert (emulator.counts["x"].read, emulator.counts["grad"].read) == (features, features)
    emulator.run("backward_input", shape, state)
    counts = emulator.counts
    assert (counts["x"].read, counts["grad"].read, counts["grad_x"].written) == (features, features, features)
