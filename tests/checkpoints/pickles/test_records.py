"""Arrays and tensors that stood in a pickle, and parts that several places share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.checkpoints.pickles.records import MAX_DEPTH, check_shape
from tests.checkpoints.pickles.reading import PROTOCOLS, there_and_back


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", ">f4", ">i2"])
def test_arrays_come_back_in_native_order(dtype: str, protocol: int) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for value in (array, array.T, array[:, ::2], array[:0], array[1, 2]):
        back = there_and_back(value, protocol)
        assert back.dtype == value.dtype.newbyteorder("=")
        assert np.array_equal(back, value)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool]
)
def test_tensors_come_back(dtype: torch.dtype, protocol: int) -> None:
    tensor = (torch.arange(6).reshape(2, 3) % 2).to(dtype)
    values = {"plain": tensor, "view": tensor.T[1:], "empty": tensor[:0], "scalar": tensor[0, 1]}
    for name, back in there_and_back(values, protocol).items():
        assert back.dtype == dtype
        assert torch.equal(back, values[name]), name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_parameters_come_back_as_tensors(protocol: int) -> None:
    parameter = torch.nn.Parameter(torch.arange(3.0))
    back = there_and_back({"a": parameter, "same": parameter}, protocol)
    assert torch.equal(back["a"], parameter.detach())
    assert back["a"] is back["same"]


def test_metadata_of_a_state_dict_is_dropped() -> None:
    state = torch.nn.Linear(1, 1).state_dict()
    assert hasattr(state, "_metadata")
    assert list(there_and_back(state, 2)) == ["weight", "bias"]


def test_a_shared_part_stays_one() -> None:
    part = [1]
    back = there_and_back([part, part, (part,)], 2)
    assert back[0] is back[1] is back[2][0]


def test_what_is_nested_too_deeply_or_in_a_circle_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    with pytest.raises(CheckpointError, match="nested deeper than 128 levels"):
        there_and_back(deep, 4)
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(CheckpointError, match="contains itself"):
        there_and_back(circle, 4)


@pytest.mark.parametrize("shape", [None, (1.0,), (-1,), (2**48,), (1,) * 17])
def test_a_shape_that_none_has_is_refused(shape: Any) -> None:
    assert check_shape((2, 0, 3)) == (2, 0, 3)
    with pytest.raises(CheckpointError, match="is not the shape of an array"):
        check_shape(shape)
