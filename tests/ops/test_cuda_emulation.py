"""The CUDA kernels, executed on the host by an emulation of CUDA's execution model, against the reference."""

from __future__ import annotations

import pytest
import torch

from sc_layers.ops import cuda_plan
from sc_layers.ops.cuda_plan import Device
from tests.ops.emulation import harness
from tests.ops.emulation.cases import assert_matches_truth, run_both
from tests.ops.emulation.harness import CLUSTERS, PLAIN, SMALL, SPLIT, TINY, Emulator, make_inputs

pytestmark = pytest.mark.skipif(not harness.is_supported(), reason="the emulation runs on Linux")

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
DEVICES = {"clusters": CLUSTERS, "plain": PLAIN, "small": SMALL, "tiny": TINY, "split": SPLIT}
LAYOUTS = pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])

# n, c, h, w, k, j: planes of one pixel, odd ones, ones of more than one chunk, more codes than fit into registers.
SHAPES = [(2, 3, 1, 1, 1, 1), (2, 5, 7, 9, 2, 3), (3, 16, 8, 8, 5, 4), (1, 10, 33, 31, 3, 2), (1, 8, 24, 40, 13, 1)]


def loaded(device: Device, times: int) -> Device:
    """A device of fewer multiprocessors, on which one sample is cut like `times` samples on the whole one."""
    part = Device.from_buffer_copy(device)
    part.multiprocessors = max(1, device.multiprocessors // times)
    return part


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(harness.compile_library())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@LAYOUTS
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("device", ["clusters", "tiny"])
def test_results_equal_reference(emulator, shape, channels_last, dtype, device) -> None:
    inputs = make_inputs(*shape, dtype, channels_last, gain=True)
    assert_matches_truth(inputs, *run_both(emulator, inputs, DEVICES[device]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@LAYOUTS
@pytest.mark.parametrize("device", ["clusters", "plain", "split", "tiny"])
def test_results_equal_reference_on_larger_planes(emulator, device, channels_last, dtype) -> None:
    inputs = make_inputs(1, 16, 56, 60, 5, 4, dtype, channels_last)
    forward, backward, grad = run_both(emulator, inputs, DEVICES[device])
    assert_matches_truth(inputs, forward, backward, grad)
    shape = cuda_plan.shape_of(1, 16, 56, 60, 5, 4, dtype, channels_last)
    plan = cuda_plan.predict(shape, DEVICES[device]).plan
    assert forward.launches == (2 if plan.on_chip else 4)


@LAYOUTS
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_planes_are_split_over_clusters(channels_last, backward) -> None:
    shape = cuda_plan.shape_of(2, 16, 40, 48, 5, 4, torch.float32, channels_last)
    assert cuda_plan.predict(shape, SPLIT, backward=backward).plan.cluster > 1
    assert not cuda_plan.predict(shape, TINY, backward=backward).plan.on_chip


@pytest.mark.parametrize("device", ["plain", "split", "tiny"])
@LAYOUTS
def test_schedules_give_identical_results(emulator, device, channels_last) -> None:
    inputs = make_inputs(2, 12, 33, 20, 6, 3, torch.float32, channels_last, gain=True)
    runs = [
        run_both(emulator, inputs, DEVICES[device], schedule=schedule, seed=seed)[:2]
        for schedule, seed in (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2))
    ]
    for run in runs[1:]:
        for first, other in zip(runs[0], run, strict=True):
            for name, result in first.results.items():
                assert torch.equal(result, other[name]), name


@pytest.mark.parametrize("device", ["clusters", "tiny"])
def test_more_work_than_a_grid_has_blocks(emulator, device) -> None:
    inputs = make_inputs(3, 40, 24, 32, 5, 2, torch.float32, gain=True)
    whole = DEVICES[device]
    limited = Device.from_buffer_copy(whole)
    limited.max_grid = 11
    for first, other in zip(run_both(emulator, inputs, whole), run_both(emulator, inputs, limited), strict=True):
        if isinstance(first, harness.Run):
            assert other.blocks <= 11 * other.launches < first.blocks
            for name, result in first.results.items():
                assert torch.equal(result, other[name]), name


def test_empty_batch_launches_nothing(emulator) -> None:
    inputs = make_inputs(0, 4, 8, 8, 2, 2)
    forward, backward, _ = run_both(emulator, inputs, CLUSTERS)
    assert forward.launches == backward.launches == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@LAYOUTS
def test_features_anywhere_in_memory(emulator, dtype, channels_last) -> None:
    inputs = make_inputs(2, 8, 8, 10, 2, 2, dtype, channels_last)
    x = inputs["x"]
    shifted = torch.empty(x.numel() + 3, dtype=dtype)[3:].as_strided(x.shape, x.stride())
    inputs["x"] = shifted.copy_(x)
    assert_matches_truth(inputs, *run_both(emulator, inputs, CLUSTERS))


@pytest.mark.parametrize("shape", [(1, 6, 5, 7, 64, 1), (1, 6, 12, 12, 2, 16), (1, 6, 12, 12, 20, 16)], ids=str)
@pytest.mark.parametrize("device", ["clusters", "small"])
def test_many_codes_and_rectangles(emulator, shape, device) -> None:
    inputs = make_inputs(*shape, torch.float32, gain=True)
    # Small gains: with masks of either sign and 64 codes the products would run through ten decades.
    inputs["gain"] *= 0.2
    assert_matches_truth(inputs, *run_both(emulator, inputs, DEVICES[device]))


@pytest.mark.parametrize("size", [(2, 5000), (3000, 1), (3, 4100)], ids=str)
def test_long_sides(emulator, size) -> None:
    inputs = make_inputs(1, 4, *size, 2, 2)
    assert_matches_truth(inputs, *run_both(emulator, inputs, PLAIN))


def test_gates_that_do_not_fit_on_chip(emulator) -> None:
    inputs = make_inputs(1, 4, 4, 1200, 6, 8)
    shape = cuda_plan.shape_of(1, 4, 4, 1200, 6, 8)
    assert not cuda_plan.predict(shape, PLAIN).plan.bands_on_chip
    assert_matches_truth(inputs, *run_both(emulator, inputs, PLAIN))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_zero_gain_is_the_identity(emulator, dtype) -> None:
    inputs = make_inputs(2, 6, 9, 10, 3, 2, dtype, gain=True)
    inputs["gain"] = torch.zeros_like(inputs["gain"])
    assert torch.equal(emulator.forward(inputs, CLUSTERS)["y"], inputs["x"])


def test_constant_plane_has_no_variance(emulator) -> None:
    inputs = make_inputs(1, 4, 16, 20, 2, 2)
    inputs["x"] = torch.full_like(inputs["x"], 1234.5)
    forward = emulator.forward(inputs, CLUSTERS)
    assert torch.equal(forward["mean"], torch.full((1, 4), 1234.5))
    torch.testing.assert_close(forward["rstd"], torch.full((1, 4), 1e4))


def test_large_mean_does_not_drown_the_variance(emulator) -> None:
    inputs = make_inputs(1, 4, 64, 72, 2, 2)
    inputs["x"] = inputs["x"] * 0.01 + 1000
    variance = inputs["x"].double().var((2, 3), unbiased=False)
    for device in (CLUSTERS, TINY):
        actual = emulator.forward(inputs, device)["rstd"]
        torch.testing.assert_close(actual, (variance + 1e-8).rsqrt().float(), rtol=1e-3, atol=0)


def test_logits_without_a_number_stay_in_their_sample(emulator) -> None:
    inputs = make_inputs(2, 4, 8, 8, 2, 2)
    inputs["logits_h"][0, 0, 0, 0, 3] = float("nan")
    forward = emulator.forward(inputs, CLUSTERS)
    assert forward["y"][0].isnan().any()
    assert not forward["y"][1].isnan().any()


@pytest.mark.parametrize(
    ("device", "shape", "dtype"),
    [
        ("clusters", (1, 48, 128, 128, 5, 4), torch.float16),
        ("clusters", (1, 64, 64, 64, 5, 4), torch.float16),
        ("clusters", (1, 64, 32, 32, 5, 4), torch.float32),
        ("plain", (1, 64, 32, 64, 5, 4), torch.bfloat16),
        ("plain", (2, 96, 32, 32, 5, 4), torch.float16),
        ("small", (1, 48, 32, 32, 5, 4), torch.float32),
    ],
)
@LAYOUTS
def test_forward_moves_little_besides_features_once(emulator, device, shape, dtype, channels_last) -> None:
    inputs = make_inputs(*shape, dtype, channels_last)
    run = emulator.forward(inputs, loaded(DEVICES[device], 64))
    features = inputs["x"].numel() * inputs["x"].element_size()
    others = (inputs[name] for name in ("logits_h", "logits_w", "scale", "bias"))
    necessary = 2 * features + sum(tensor.numel() * tensor.element_size() for tensor in others)
    assert (run.counts["x"].read, run.counts["y"].written) == (features, features)
    assert run.total("unique_read") + run.total("unique_written") <= 1.15 * necessary
    assert run.total("read") + run.total("written") <= 1.5 * necessary


@pytest.mark.parametrize("shape", [(1, 32, 128, 128, 5, 4), (1, 64, 32, 32, 5, 4), (1, 12, 15, 21, 3, 2)], ids=str)
@pytest.mark.parametrize("device", ["clusters", "plain"])
def test_features_move_as_often_as_planned(emulator, device, shape) -> None:
    inputs = make_inputs(*shape, torch.float16)
    features = inputs["x"].numel() * inputs["x"].element_size()
    forward, backward, _ = run_both(emulator, inputs, DEVICES[device])
    for run, read, written, is_backward in ((forward, ("x",), "y", 0), (backward, ("x", "grad"), "grad_x", 1)):
        prediction = cuda_plan.predict(
            cuda_plan.shape_of(*shape, torch.float16), DEVICES[device], backward=bool(is_backward)
        )
        times = 1 if prediction.plan.on_chip else 2
        assert [run.counts[name].read for name in read] == [times * features] * len(read)
        assert run.counts[written].written == features
        assert prediction.estimate.feature_bytes == (times * len(read) + 1) * features


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("device", ["clusters", "plain", "small"])
def test_model_counts_the_bytes_that_are_moved(emulator, device, backward) -> None:
    shape = (2, 48, 40, 48, 5, 4)
    inputs = make_inputs(*shape, torch.float16)
    run = run_both(emulator, inputs, DEVICES[device])[int(backward)]
    predicted = cuda_plan.predict(cuda_plan.shape_of(*shape, torch.float16), DEVICES[device], backward=backward)
    moved = run.total("read") + run.total("written")
    expected = predicted.estimate.feature_bytes + predicted.estimate.other_bytes
    assert expected == pytest.approx(moved, rel=0.1)
