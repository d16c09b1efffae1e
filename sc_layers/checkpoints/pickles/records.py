"""What stands in for a pickled object: plain data, of which only the reader of that format knows the meaning."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...messages import shown
from ..errors import CheckpointError
from .limits import OBJECT, Budget

MAX_DEPTH = 128
MAX_UNFOLDED = 1_000_000
_TEXT = 16  # characters that count as one value
_MOST_NUMBERS = 2**48  # that a shape may ask for, even where one of its sizes is 0
MAX_DIMENSIONS = 16
_SCALARS = (str, bytes, bytearray, bool, int, float, complex, type(None), np.ndarray, np.generic, Tensor)
_DTYPE_NAME = re.compile(r"b1|[iu][1248]|f[248]")


@dataclass(eq=False)
class Record:
    """An object of a known class that was not made: its class by name, and the data it was pickled with."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    state: Any = field(default=None, repr=False)

    def build(self, state: Any) -> None:
        """Keep what the pickle sets as the object's state."""
        self.state = state


class DictRecord(dict[Any, Any]):
    """A dict with attributes, which are dropped: the metadata of a state dict says nothing that we need."""

    def build(self, state: Any) -> None:
        """Drop the attributes in `state`."""
        if not isinstance(state, (dict, tuple)):
            raise CheckpointError(f"a dict cannot take the state {type(state).__name__}")


class DtypeRecord:
    """A number's type and byte order.

    Args:
        name: numpy's name of it, such as `"f4"`.
    """

    def __init__(self, name: Any) -> None:
        order = name[:1] if isinstance(name, str) and name[:1] in "<>=|" else ""
        if not isinstance(name, str) or not _DTYPE_NAME.fullmatch(name[len(order) :]):
            raise CheckpointError(f"arrays of {shown(name)} are not read, only plain numbers are")
        self.dtype = np.dtype(name)

    def build(self, state: Any) -> None:
        """Take the byte order from `state`, where numpy keeps it second."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("a dtype without byte order")
        self.dtype = self.dtype.newbyteorder(state[1])


def check_shape(shape: Any) -> tuple[int, ...]:
    """`shape` if it is a tuple of sizes.

    Raises:
        CheckpointError: it is not.
    """
    sizes = isinstance(shape, tuple) and len(shape) <= MAX_DIMENSIONS
    if not sizes or not all(type(size) is int and 0 <= size < _MOST_NUMBERS for size in shape):
        raise CheckpointError(f"{shown(shape)} is not the shape of an array")
    if math.prod(max(size, 1) for size in shape) > _MOST_NUMBERS:
        raise CheckpointError(f"nobody has an array of shape {shape}")
    return tuple(shape)


def make_array(raw: Any, dtype: Any, shape: Any, fortran: bool, budget: Budget) -> np.ndarray[Any, Any]:
    """An array over the bytes `raw`, whose number must be what shape and dtype ask for.

    Args:
        raw: bytes, or text with one character for each.
        dtype: a `DtypeRecord`.
        shape: a tuple of sizes.
        fortran: whether the first index runs fastest.
        budget: pays where numbers are copied.

    Raises:
        CheckpointError: it is not, or one of the arguments is not what it should be.
    """
    if isinstance(raw, str):
        budget.charge(len(raw))
        raw = encode_latin1(raw)
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(dtype, DtypeRecord):
        raise CheckpointError("an array is not made of bytes and a dtype")
    shape = check_shape(shape)
    if math.prod(shape) * dtype.dtype.itemsize != len(raw):
        raise CheckpointError(f"an array of shape {shape} and {dtype.dtype} cannot have {len(raw)} bytes")
    array: np.ndarray[Any, Any] = np.frombuffer(raw, dtype.dtype).reshape(shape, order="F" if fortran else "C")
    if not dtype.dtype.isnative:
        budget.charge(len(raw))
    return array.astype(dtype.dtype.newbyteorder("="), copy=False)


def encode_latin1(text: str) -> bytes:
    """The bytes that a pickle of protocol 2 wrote as text.

    Raises:
        CheckpointError: a character above 255.
    """
    try:
        return text.encode("latin1")
    except UnicodeEncodeError as error:
        raise CheckpointError("bytes written as text hold a character above 255") from error


class ArrayRecord:
    """A numpy array: empty when announced, filled by the state that follows.

    Args:
        budget: pays where numbers are copied.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.array: np.ndarray[Any, Any] | None = None

    def build(self, state: Any) -> None:
        """Fill the array from `state`, which is (version, shape, dtype, order, bytes)."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("the state of an array is not (version, shape, dtype, order, bytes)")
        _, shape, dtype, fortran, raw = state
        self.array = make_array(raw, dtype, shape, bool(fortran), self.budget)

    def settle(self) -> np.ndarray[Any, Any]:
        """The array; raises CheckpointError if it was never filled."""
        if self.array is None:
            raise CheckpointError("an array was announced and never filled")
        return self.array


@dataclass(eq=False)
class StorageRecord:
    """The bytes of a torch storage, `count` numbers of `dtype`; they may follow later in the file."""

    dtype: torch.dtype
    count: int
    flat: Tensor | None = None

    def fill(self, raw: memoryview) -> None:
        """Take the numbers from their bytes, without a copy where these are aligned.

        Args:
            raw: bytes that may be written.

        Raises:
            CheckpointError: they are not as many as announced.
        """
        if len(raw) != self.count * self.dtype.itemsize:
            raise CheckpointError(f"a storage of {shown(self.count)} {self.dtype} cannot have {len(raw)} bytes")
        if self.count == 0:
            self.flat = torch.empty(0, dtype=self.dtype)
            return
        flat = torch.frombuffer(raw, dtype=self.dtype)
        self.flat = flat.clone() if flat.data_ptr() % self.dtype.itemsize else flat


@dataclass(eq=False)
class TensorRecord:
    """A torch tensor: a view of a storage."""

    storage: StorageRecord
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def __post_init__(self) -> None:
        self.shape, self.stride = check_shape(self.shape), check_shape(self.stride)
        if not isinstance(self.storage, StorageRecord) or type(self.offset) is not int or self.offset < 0:
            raise CheckpointError("a tensor is not made of a storage and an offset")
        if len(self.shape) != len(self.stride):
            raise CheckpointError(f"a tensor of shape {self.shape} has strides {self.stride}")
        reach = sum((size - 1) * step for size, step in zip(self.shape, self.stride, strict=True))
        count = math.prod(self.shape)
        if count and (self.offset + reach >= self.storage.count or count > self.storage.count):
            raise CheckpointError(
                f"a tensor of shape {self.shape}, strides {self.stride} and offset {self.offset} does not fit "
                f"its storage of {self.storage.count} numbers"
            )

    def settle(self) -> Tensor:
        """The tensor; raises CheckpointError if its numbers never came."""
        if self.storage.flat is None:
            raise CheckpointError("a tensor's storage is missing")
        if 0 in self.shape:
            return torch.empty(self.shape, dtype=self.storage.dtype)
        return self.storage.flat.as_strided(self.shape, self.stride, self.offset)


class _Settler:
    """Turns what was read into plain Python, arrays, tensors and records, and refuses loops and deep nesting."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.unfolded = 0
        self.done: dict[int, tuple[Any, int]] = {}
        self.open: set[int] = set()

    def settle(self, value: Any) -> Any:
        if isinstance(value, _SCALARS):
            self.count(1 + len(value) // _TEXT if isinstance(value, (str, bytes, bytearray)) else 1)
            return value
        if id(value) in self.done:
            settled, size = self.done[id(value)]
            self.count(size)
            return settled
        if id(value) in self.open:
            raise CheckpointError("the checkpoint contains itself")
        if len(self.open) >= MAX_DEPTH:
            raise CheckpointError(f"the checkpoint is nested deeper than {MAX_DEPTH} levels")
        self.open.add(id(value))
        before = self.unfolded
        self.count(1)
        settled = self.convert(value)
        self.done[id(value)] = settled, self.unfolded - before
        self.open.remove(id(value))
        return settled

    def count(self, size: int) -> None:
        """Shared parts count each time: whoever walks the result without remembering must come to an end."""
        self.unfolded += size
        if self.unfolded > MAX_UNFOLDED:
            raise CheckpointError(f"the checkpoint unfolds to more than {MAX_UNFOLDED} values")

    def convert(self, value: Any) -> Any:
        if isinstance(value, (ArrayRecord, TensorRecord)):
            settled = value.settle()
            self.budget.charge(settled.nbytes + 10 * OBJECT)
            return settled
        if isinstance(value, DtypeRecord):
            return str(value.dtype)
        if isinstance(value, dict):
            return {self.settle(key): self.settle(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.settle(item) for item in value]
        if isinstance(value, (tuple, set, frozenset)):
            return type(value)(self.settle(item) for item in value)
        if isinstance(value, Record):
            fields = map(self.settle, (value.args, value.kwargs, value.state))
            return type(value)(value.module, value.name, *fields)
        raise CheckpointError(f"the checkpoint holds a bare {type(value).__name__}")


def settle(value: Any, budget: Budget) -> Any:
    """Plain Python, arrays, tensors and records from what an unpickler left.

    Args:
        value: what it left.
        budget: pays for arrays and tensors.

    Raises:
        CheckpointError: something refers to itself, is nested too deeply, or was announced and never filled.
    """
    return _Settler(budget).settle(value)
