"""The closed table: what its names make, and arguments that they refuse."""

from __future__ import annotations

import argparse
import inspect
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch

from sc_layers.attach import hooks
from sc_layers.checkpoints.errors import CheckpointError, UntrustedCheckpointError
from sc_layers.checkpoints.pickles.limits import Budget
from sc_layers.checkpoints.pickles.names import names
from sc_layers.checkpoints.pickles.records import Record
from sc_layers.checkpoints.pickles.torch_files import read_storage
from tests.checkpoints.pickles.reading import PROTOCOLS, read, there_and_back
from tests.checkpoints.samples import EasyDict, Network


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        {"a"},  # one, whose text does not depend on the hash of the day: tests run in several processes
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
    ],
)
def test_a_wrong_argument_is_a_clear_error(opcodes: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(b"\x80\x04" + opcodes + b".")


def test_every_hook_that_attaching_can_leave_is_known() -> None:
    table = names(Budget(0), read_storage)
    classes = [
        name for name, value in vars(hooks).items() if inspect.isclass(value) and value.__module__ == hooks.__name__
    ]
    left = [name for name in classes if name != "Hook"]  # the base of the others
    assert left
    assert [name for name in left if (hooks.__name__, name) not in table] == []
