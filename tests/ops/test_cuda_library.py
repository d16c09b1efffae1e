"""The whole CUDA library without a GPU: it builds, loads, and leaves the CPU path and PyTorch's errors alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sc_layers import SpatialConstriction
from sc_layers.ops import cuda_toolkit

ROOT = Path(__file__).parents[2]


def _missing() -> str | None:
    try:
        cuda_toolkit.find_toolkit(torch.version.cuda)
    except cuda_toolkit.ToolkitError as error:
        return str(error)
    return None


SCRIPT = """
import torch
from sc_layers.ops import loading
from sc_layers import functional as F
from tests.ops.samples import sample_inputs

assert loading.load("cuda"), loading.failure("cuda")
assert torch._C._dispatch_has_kernel_for_dispatch_key("sc_layers::constrict", "CUDA")
assert torch._C._dispatch_has_kernel_for_dispatch_key("sc_layers::constrict_backward", "CUDA")
inputs = sample_inputs(requires_grad=False)
assert loading.load("cpu"), loading.failure("cpu")
torch.testing.assert_close(F.constrict(*inputs, impl="fused"), F.constrict(*inputs, impl="reference"))
if not torch.cuda.is_available():
    try:
        inputs[0].to("cuda")
    except (RuntimeError, AssertionError) as error:
        print("refused:", error)
print("done")
"""


@pytest.mark.slow
@pytest.mark.skipif(_missing() is not None, reason=str(_missing()))
def test_library_builds_and_loads_without_gpu(tmp_path: Path) -> None:
    env = {**os.environ, "SC_LAYERS_CACHE": str(tmp_path), "TORCH_CUDA_ARCH_LIST": "9.0"}
    env.pop("SC_LAYERS_IMPL", None)
    command = [sys.executable, "-c", SCRIPT]
    result = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("done\n")
    if not torch.cuda.is_available():
        assert "NVIDIA" in result.stdout or "CUDA" in result.stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_moving_a_layer_to_a_missing_device_is_pytorchs_own_error() -> None:
    layer = SpatialConstriction(in_channels=8, size=4, num_codes=2, num_rects=1, impl="fused")
    with pytest.raises((RuntimeError, AssertionError), match=r"CUDA|NVIDIA"):
        layer.to("cuda")
