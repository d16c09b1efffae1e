"""The planner and the model of what a call costs."""

from __future__ import annotations

import pytest
import torch

from sc_layers.ops.cuda_plan import DEVICES, predict, shape_of

SHAPES = [
    (64, 256, 128, 128, 5, 4),
    (8, 512, 8, 8, 5, 4),
    (8, 512, 32, 32, 16, 4),
    (2, 64, 256, 256, 5, 4),
    (1, 3, 1, 1, 1, 1),
    (1, 7, 1023, 777, 3, 2),
    (4, 32, 64, 64, 64, 16),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("channels_last", [False, True], ids=["nchw", "nhwc"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_plan_covers_the_work_and_fits(device, shape, backward, channels_last, dtype) -> None:
    n, c, h, w = shape[:4]
    plan, estimate = predict(shape_of(*shape, dtype, channels_last), DEVICES[device], backward=backward)
    assert plan.slices * plan.slice >= h * w > (plan.slices - 1) * plan.slice
    assert plan.groups * plan.batches * plan.batch >= c > (plan.groups - 1) * plan.batches * plan.batch
    assert plan.blocks == n * plan.groups * plan.slices
    assert plan.shared.bytes <= DEVICES[device].shared_per_block
    assert plan.cluster == (plan.slices if plan.on_chip else 1)
    assert plan.cluster <= DEVICES[device].max_cluster
    assert estimate.seconds > estimate.ideal_seconds


def test_forward_is_predicted_close_to_the_limit_of_memory() -> None:
    estimate = predict(shape_of(64, 256, 128, 128, 5, 4, torch.float16), DEVICES["H100"]).estimate
    assert estimate.launches == 2
    assert estimate.ideal_seconds / estimate.seconds >= 0.85


def test_more_memory_traffic_takes_longer() -> None:
    half, single = (
        predict(shape_of(64, 256, 128, 128, 5, 4, dtype), DEVICES["H100"]).estimate
        for dtype in (torch.float16, torch.float32)
    )
    assert 1.5 * half.seconds < single.seconds < 2.5 * half.seconds


def test_work_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(ValueError, match="no cut of this work fits"):
        predict(shape_of(1, 4, 8, 8, 2000, 1), DEVICES["T4"])
