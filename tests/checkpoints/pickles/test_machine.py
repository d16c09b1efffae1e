"""The stack machine gives what Python's own unpickler gives, for everything that checkpoints are made of."""

from __future__ import annotations

import argparse
import io
import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sc_layers.checkpoints.errors import CheckpointError, UntrustedCheckpointError
from sc_layers.checkpoints.pickles.limits import Budget
from sc_layers.checkpoints.pickles.machine import Machine
from sc_layers.checkpoints.pickles.names import names
from sc_layers.checkpoints.pickles.records import Record, settle
from sc_layers.checkpoints.pickles.torch_files import read_storage
from tests.checkpoints.samples import EasyDict, Network

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read(data: bytes) -> Any:
    budget = Budget(len(data))
    return settle(Machine(names(budget, read_storage), budget).run(io.BytesIO(data)), budget)


def there_and_back(value: Any, protocol: int) -> Any:
    return read(pickle.dumps(value, protocol))


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
_KEYS = st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none()
_VALUES = st.recursive(
    _SCALARS,
    lambda part: st.lists(part) | st.tuples(part, part) | st.tuples(part) | st.dictionaries(_KEYS, part),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(_VALUES, st.sampled_from(PROTOCOLS))
def test_plain_values_come_back(value: Any, protocol: int) -> None:
    assert there_and_back(value, protocol) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        {"a", "b"},
        {1, 2},
        set(),
        bytearray(b"\x00\xff"),
        bytearray(),
        b"\x80abc",
        OrderedDict(b=1, a=2),
        EasyDict(a=EasyDict(b=[1])),
        torch.Size([2, 3]),
        2**100,
        -1.5,
        "ü\n\\",
    ],
    ids=repr,
)
def test_what_checkpoints_hold_comes_back(value: Any, protocol: int) -> None:
    back = there_and_back(value, protocol)
    assert back == value
    if isinstance(value, dict):
        assert list(back) == list(value)


def test_frozen_sets_of_newer_protocols_come_back() -> None:
    assert there_and_back(frozenset({1, "a"}), 4) == {1, "a"}


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


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_devices_and_dtypes_come_back_as_text(protocol: int) -> None:
    assert there_and_back([torch.device("cuda:1"), torch.float16, np.dtype("f4")], protocol) == [
        "cuda",
        "float16",
        "float32",
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_objects_of_known_classes_become_records(protocol: int) -> None:
    for value, module, name in (
        (argparse.Namespace(size=4, path="a"), "argparse", "Namespace"),
        (Network(name="G"), "dnnlib.tflib.network", "Network"),
    ):
        record = there_and_back(value, protocol)
        assert isinstance(record, Record)
        assert (record.module, record.name) == (module, name)
        assert record.state == vars(value)


def test_metadata_of_a_state_dict_is_dropped() -> None:
    state = torch.nn.Linear(1, 1).state_dict()
    assert hasattr(state, "_metadata")
    assert list(there_and_back(state, 2)) == ["weight", "bias"]


def test_a_shared_part_stays_one() -> None:
    part = [1]
    back = there_and_back([part, part, (part,)], 2)
    assert back[0] is back[1] is back[2][0]


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(UntrustedCheckpointError, match=r"collections\.deque"):
        read(b"\x80\x02ccollections\ndeque\n)R.")


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"cbuiltins\nset\n]}a\x85R", "a set is not made of a list of texts or numbers"),
        (b"cbuiltins\nset\n]\x8a\x09" + b"\xff" * 8 + b"\x7fa\x85R", "64 bits in a set"),
        (b"cbuiltins\nbytearray\nK\x05\x85R", "a bytearray is not made of a int"),
        (b"ccollections\nOrderedDict\nK\x05\x85R", "not made of a list of pairs"),
        (b"ccollections\nOrderedDict\n]K\x01K\x02\x86a\x85R", "keys that are no text"),
        (b"ctorch\nSize\nK\x05\x85R", "a size is not made of a int"),
        (b"ctorch\ndevice\nK\x05\x85R", "named by a text"),
        (b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R", "only text in latin1"),
        (b"c_codecs\nencode\nX\x02\x00\x00\x00" + "ł".encode() + b"X\x06\x00\x00\x00latin1\x86R", "above 255"),
        (b"ctorch._utils\n_rebuild_parameter\nK\x05\x85R", "a parameter is not made of a tensor"),
        (b"ctorch._utils\n_rebuild_tensor\nK\x01K\x02\x86R", "a tensor got 2 arguments"),
        (b"ctorch.storage\n_load_from_bytes\nK\x05\x85R", "a storage is not made of bytes"),
        (b"ccopyreg\n_reconstructor\n(K\x01K\x02NtR", "not made of a class and its base"),
        (b"cbuiltins\nobject\n)R", "makes an instance"),
        (b"cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R}b", "without byte order"),
        (b"cnumpy\nndarray\n)R}b", "the state of an array"),
        (b"cnumpy\nndarray\n", "a bare Name"),
        (b"K\x01K\x02s", "stack is empty|sets items"),
        (b"}K\x01(K\x02u", "a key without value|sets items"),
        (b"K\x01K\x02a", "appends to something"),
        (b"K\x01(K\x02\x90", "adds to something"),
        (b"(o", "no class before"),
    ],
)
def test_a_wrong_argument_is_a_clear_error(opcodes: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(b"\x80\x04" + opcodes + b".")
