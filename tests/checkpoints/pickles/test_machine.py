"""The stack machine gives what Python's own unpickler gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sc_layers.checkpoints.errors import CheckpointError
from tests.checkpoints.pickles.reading import PROTOCOLS, read, there_and_back

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


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (b"K\x01K\x02s", "stack is empty|sets items"),
        (b"}K\x01(K\x02u", "a key without value|sets items"),
        (b"K\x01K\x02a", "appends to something"),
        (b"K\x01(K\x02\x90", "adds to something"),
        (b"(o", "no class before"),
    ],
)
def test_opcodes_out_of_place_are_a_clear_error(opcodes: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read(b"\x80\x04" + opcodes + b".")
