"""The CUDA kernels on a real card; skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sc_layers import SpatialConstriction
from sc_layers import functional as F
from sc_layers.ops import loading
from tests.ops.samples import (
    EPS,
    assert_about_as_exact_as_plain,
    composed_in,
    relative_error,
    result_and_gradients,
    sample_inputs,
    weights_for,
)
from tests.tolerances import SAME_FORMULA

ROOT = Path(__file__).parents[2]
EXACT = (torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)
LAYOUTS = (torch.contiguous_format, torch.channels_last)

# Planes for lanes, for a block, and in pieces; odd sizes; codes for an instance of their own, and many.
SIZES = [
    (2, 5, 7, 9, 2, 3),
    (3, 64, 32, 32, 5, 4),
    (1, 24, 128, 128, 5, 4),
    (1, 4, 511, 513, 3, 1),
    (2, 10, 20, 24, 33, 2),
]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.fixture(scope="module", autouse=True)
def _library() -> None:
    if torch.cuda.is_available():
        assert loading.load("cuda"), loading.failure("cuda")


def on_device(inputs: list[Tensor | None], device: str = "cuda") -> list[Tensor | None]:
    return [None if t is None else t.detach().to(device).requires_grad_(t.requires_grad) for t in inputs]


@pytest.mark.parametrize("dtype", EXACT, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_equals_reference_in_float64(size, layout, dtype) -> None:
    inputs = sample_inputs(*size, dtype=dtype, memory_format=layout)
    results = result_and_gradients(on_device(inputs), "fused")
    assert results[0].is_contiguous(memory_format=layout)
    for result, expected in zip(results, composed_in(torch.float64, inputs, weights_for(results[0])), strict=True):
        assert relative_error(result.cpu(), expected) <= SAME_FORMULA[dtype]["rtol"]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_half_precision_is_about_as_exact_as_plain_pytorch(size, layout, dtype) -> None:
    inputs = sample_inputs(*size, dtype=dtype, memory_format=layout)
    results = result_and_gradients(on_device(inputs), "fused")
    assert results[0].is_contiguous(memory_format=layout)
    assert_about_as_exact_as_plain(results, inputs, weights_for(results[0]))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_is_deterministic(size) -> None:
    inputs = on_device(sample_inputs(*size))
    first = result_and_gradients(inputs, "fused")
    for _ in range(5):
        assert all(torch.equal(a, b) for a, b in zip(first, result_and_gradients(inputs, "fused"), strict=True))


def test_gradcheck() -> None:
    inputs = on_device(sample_inputs(2, 3, 4, 5, 2, 2, dtype=torch.float64))
    assert torch.autograd.gradcheck(lambda *tensors: F.constrict(*tensors, EPS, "fused"), inputs)
    assert torch.autograd.gradgradcheck(lambda *tensors: F.constrict(*tensors, EPS, "fused"), inputs)


def test_empty_batch() -> None:
    results = result_and_gradients(on_device(sample_inputs(0)), "fused")
    assert results[0].shape[0] == 0
    assert torch.equal(results[-1], torch.zeros_like(results[-1]))


def test_runs_on_the_current_stream() -> None:
    inputs = on_device(sample_inputs(8, 64, 64, 64, 5, 4, requires_grad=False))
    expected = F.constrict(*inputs, EPS, "fused")
    stream = torch.cuda.Stream()
    x = torch.zeros_like(inputs[0])
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # a kernel on another stream would read the zeros
        x.copy_(inputs[0])
        actual = F.constrict(x, *inputs[1:], EPS, "fused")
    stream.synchronize()
    assert torch.equal(actual, expected)


def test_cuda_graph_replays() -> None:
    inputs = on_device(sample_inputs(4, 32, 64, 64, 5, 4))
    warm = torch.cuda.Stream()
    with torch.cuda.stream(warm):
        result_and_gradients(inputs, "fused")
    warm.synchronize()
    y_weights = torch.randn_like(inputs[0])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = F.constrict(*inputs, EPS, "fused")
        grads = torch.autograd.grad(y, inputs, y_weights)
    with torch.no_grad():
        inputs[0].normal_()
    graph.replay()
    fresh = F.constrict(*inputs, EPS, "fused")
    assert torch.equal(y, fresh)
    expected = torch.autograd.grad(fresh, inputs, y_weights)
    assert all(torch.equal(a, b) for a, b in zip(grads, expected, strict=True))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_runs_on_the_device_of_its_inputs() -> None:
    inputs = sample_inputs(requires_grad=False)
    first, second = (F.constrict(*on_device(inputs, f"cuda:{i}"), EPS, "fused") for i in range(2))
    assert second.device.index == 1
    assert torch.cuda.current_device() == 0
    assert torch.equal(first.cpu(), second.cpu())


def test_tensors_on_two_devices_are_refused() -> None:
    inputs = sample_inputs(requires_grad=False)
    with pytest.raises(ValueError, match="one device"):
        F.constrict(inputs[0].cuda(), *inputs[1:], EPS, "fused")


def test_layer_compiles_without_graph_break() -> None:
    layer = SpatialConstriction(32, 16, num_codes=5).cuda()
    x, codes = torch.randn(4, 32, 16, 16, device="cuda"), torch.randn(4, 5, device="cuda")
    compiled = torch.compile(layer, fullgraph=True)
    torch.testing.assert_close(compiled(x, codes), layer(x, codes))


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing(tool: str) -> None:
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        pytest.skip("no compute-sanitizer on the PATH")
    code = (
        "from tests.ops.samples import result_and_gradients, sample_inputs\n"
        "from tests.ops.test_cuda_gpu import on_device\n"
        "for size in [(2, 5, 7, 9, 2, 3), (1, 16, 64, 64, 5, 4), (1, 4, 255, 257, 3, 1)]:\n"
        "    result_and_gradients(on_device(sample_inputs(*size)), 'fused')\n"
    )
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, "-c", code]
    environment = {**os.environ, "PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-4000:]
