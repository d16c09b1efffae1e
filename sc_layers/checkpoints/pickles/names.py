"""The closed table of names that pickles may ask for, and what we do in their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

from ..errors import CheckpointError
from .limits import Budget
from .machine import Constant, Construct, Name, Table
from .records import (
    ArrayRecord,
    DictRecord,
    DtypeRecord,
    Record,
    StorageRecord,
    TensorRecord,
    encode_latin1,
    make_array,
)

StorageReader = Callable[[bytes, Budget], StorageRecord]

_STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_DTYPES = ("float32", "float64", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_RECORDS = (
    ("dnnlib.tflib.network", "Network"),
    ("argparse", "Namespace"),
    ("torch.nn.modules.container", "ModuleList"),
    ("torch.nn.modules.container", "ModuleDict"),
    ("torch.nn.modules.container", "Sequential"),
    ("torch.nn.modules.linear", "Linear"),
    ("torch.nn.modules.linear", "Identity"),
    ("torch.nn.modules.conv", "Conv2d"),
    ("sc_layers.layers", "SpatialConstriction"),
    ("sc_layers.layers", "SoftmaxConstriction"),
    ("sc_layers.checkpoints.read", "rebuild_network"),
    ("sc_layers.models.discriminator", "Recognizer"),
    ("sc_layers.models.discriminator", "RecognizerConfig"),
    ("sc_layers.models.discriminator", "DownBlock"),
    ("sc_layers.models.modules", "ConvLayer"),
    ("sc_layers.models.modules", "LinearLayer"),
    ("sc_layers.attach.attachment", "Attachment"),
    ("sc_layers.attach.hooks", "InFlight"),
    ("sc_layers.attach.hooks", "Argument"),
    ("sc_layers.attach.hooks", "WidenW"),
    ("sc_layers.attach.hooks", "StripCodes"),
    ("sc_layers.attach.hooks", "Constrict"),
    ("sc_layers.attach.hooks", "TakeCodes"),
    ("sc_layers.attach.hooks", "Forget"),
    ("sc_layers.attach.hooks", "ConstrictInFlight"),
    ("sc_layers.attach.hooks", "ConstrictInput"),
    ("sc_layers.attach.hooks", "ReplaceFeatures"),
    ("sc_layers.attach.hooks", "ShieldFromTruncation"),
    ("sc_layers.attach.hooks", "CodedMapping"),
)


def _arguments(what: str, args: tuple[Any, ...], least: int, most: int) -> tuple[Any, ...]:
    """`args` padded with None to `most`, if there are at least `least`."""
    if not least <= len(args) <= most:
        raise CheckpointError(f"{what} got {len(args)} arguments, expected {least} to {most}")
    return args + (None,) * (most - len(args))


class _Constructors:
    """What the names of numpy, torch and Python make; `budget` pays for everything that is copied."""

    def __init__(self, budget: Budget, read_storage: StorageReader) -> None:
        self.budget = budget
        self.read_storage = read_storage

    def ndarray(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArrayRecord:
        return ArrayRecord(self.budget)

    def dtype(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DtypeRecord:
        return DtypeRecord(_arguments("dtype", args, 1, 3)[0])

    def scalar(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> np.generic:
        dtype, raw = _arguments("a numpy scalar", args, 2, 2)
        value: Any = make_array(raw, dtype, (), False, self.budget)[()]
        return cast("np.generic", value)

    def frombuffer(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ArrayRecord:
        raw, dtype, shape, order = _arguments("frombuffer", args, 4, 4)
        record = ArrayRecord(self.budget)
        record.array = make_array(raw, dtype, shape, order == "F", self.budget)
        return record

    def encode(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        text, encoding = _arguments("encode", args, 2, 2)
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise CheckpointError("only text in latin1 is turned into bytes")
        self.budget.charge(len(text))
        return encode_latin1(text)

    def bytearray(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytearray:
        raw, encoding = _arguments("bytearray", args, 0, 2)
        if isinstance(raw, str):
            raw = self.encode((raw, encoding), {})
        if raw is not None and not isinstance(raw, (bytes, bytearray)):
            raise CheckpointError(f"a bytearray is not made of a {type(raw).__name__}")
        self.budget.charge(len(raw or b""))
        return bytearray(raw or b"")

    def no_bytes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """`bytes()`, which is how protocols below 3 write empty bytes."""
        _arguments("bytes", args, 0, 0)
        return b""

    def mapping(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> DictRecord:
        """An OrderedDict or EasyDict: empty, or of a list of pairs as Python 2 wrote it."""
        (pairs,) = _arguments("a dict", args, 0, 1)
        pairs = [] if pairs is None else pairs
        if not isinstance(pairs, list) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            raise CheckpointError("a dict is not made of a list of pairs")
        if not all(isinstance(key, str) for key, _ in pairs):
            raise CheckpointError("a dict made of pairs has keys that are no text")
        self.budget.charge(64 * len(pairs))
        return DictRecord(dict(map(tuple, pairs)))

    def members(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> set[Any]:
        """A set of a list of texts or numbers, as protocols below 4 write it."""
        (items,) = _arguments("a set", args, 0, 1)
        items = [] if items is None else items
        if not isinstance(items, (list, tuple)) or not all(type(item) in (str, int) for item in items):
            raise CheckpointError("a set is not made of a list of texts or numbers")
        if not all(isinstance(item, str) or abs(item) < 2**63 for item in items):
            raise CheckpointError("an integer of more than 64 bits in a set")
        self.budget.charge(64 * len(items))
        return set(items)

    def size(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        (sizes,) = _arguments("a size", args, 1, 1)
        if not isinstance(sizes, (list, tuple)):
            raise CheckpointError(f"a size is not made of a {type(sizes).__name__}")
        self.budget.charge(8 * len(sizes))
        return tuple(sizes)

    def device(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        kind, _ = _arguments("a device", args, 1, 2)
        if not isinstance(kind, str):
            raise CheckpointError("a device is named by a text")
        return kind

    def tensor(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TensorRecord:
        storage, offset, shape, stride, *_ = _arguments("a tensor", args, 4, 7)
        return TensorRecord(storage, offset, shape, stride)

    def parameter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TensorRecord:
        data, *_ = _arguments("a parameter", args, 1, 4)
        if not isinstance(data, TensorRecord):
            raise CheckpointError("a parameter is not made of a tensor")
        return data

    def storage(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> StorageRecord:
        (raw,) = _arguments("a storage", args, 1, 1)
        if not isinstance(raw, bytes):
            raise CheckpointError("a storage is not made of bytes")
        return self.read_storage(raw, self.budget)

    def reconstructor(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """`copyreg._reconstructor(class, base, state)`, which protocols 0 and 1 call for every object."""
        target, base, state = _arguments("an object", args, 3, 3)
        if not isinstance(target, Name) or not isinstance(base, Name) or not isinstance(state, (dict, type(None))):
            raise CheckpointError("an object is not made of a class and its base")
        made = target.construct((), {})
        if state and not isinstance(made, DictRecord):
            raise CheckpointError(f"an object of {target.name} cannot be made of a dict")
        if state:
            self.budget.charge(64 * len(state))
            made.update(state)
        return made

    def no_instances(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise CheckpointError("the pickle makes an instance of what is only named in other checkpoints")


def _record_of(module: str, name: str) -> Construct:
    def construct(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Record:
        return Record(module, name, args, kwargs)

    return construct


def _persistent_object(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Record:
    """An object of stylegan2-ada's `persistence`: class name and state; the source text in it is not looked at."""
    (meta,) = _arguments("a persistent object", args, 1, 1)
    fields = ("type", "version", "class_name", "state")
    if not isinstance(meta, dict) or not all(name in meta for name in fields) or meta["type"] != "class":
        raise CheckpointError("a persistent object without class name and state")
    name, state = meta["class_name"], meta["state"]
    if not isinstance(name, str) or not isinstance(state, dict):
        raise CheckpointError("a persistent object without class name and state")
    return Record("torch_utils.persistence", name, state=state)


def names(budget: Budget, read_storage: StorageReader) -> Table:
    """The closed table for one file.

    Args:
        budget: pays for everything that is copied.
        read_storage: reads a storage that a pickle holds as a file of `torch.save` within, see `torch_files`.
    """
    make = _Constructors(budget, read_storage)
    table: dict[tuple[str, str], Construct | Constant] = {
        ("numpy", "ndarray"): make.ndarray,
        ("numpy", "dtype"): make.dtype,
        ("_codecs", "encode"): make.encode,
        ("collections", "OrderedDict"): make.mapping,
        ("dnnlib.util", "EasyDict"): make.mapping,
        ("dnnlib", "EasyDict"): make.mapping,
        ("torch", "Size"): make.size,
        ("torch", "device"): make.device,
        ("torch._utils", "_rebuild_tensor"): make.tensor,
        ("torch._utils", "_rebuild_tensor_v2"): make.tensor,
        ("torch._utils", "_rebuild_parameter"): make.parameter,
        ("torch._utils", "_rebuild_parameter_with_state"): make.parameter,
        ("torch.storage", "_load_from_bytes"): make.storage,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent_object,
    }
    for numpy in ("numpy.core", "numpy._core"):
        table[f"{numpy}.multiarray", "_reconstruct"] = make.ndarray
        table[f"{numpy}.multiarray", "scalar"] = make.scalar
        table[f"{numpy}.numeric", "_frombuffer"] = make.frombuffer
    for builtins in ("builtins", "__builtin__"):
        table[builtins, "bytearray"] = make.bytearray
        table[builtins, "set"] = make.members
        table[builtins, "bytes"] = make.no_bytes
        table[builtins, "object"] = make.no_instances
        table[builtins, "dict"] = make.no_instances
    for copyreg in ("copyreg", "copy_reg"):
        table[copyreg, "_reconstructor"] = make.reconstructor
    table.update({record: _record_of(*record) for record in _RECORDS})
    table.update({("torch", name): Constant(name) for name in _DTYPES})
    table.update({("torch", name): Constant(dtype) for name, dtype in _STORAGES.items()})
    return table
