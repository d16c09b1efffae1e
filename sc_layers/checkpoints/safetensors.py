"""The safetensors format: a JSON header and raw tensors, nothing that could run.

Layout: the header's length as 8 bytes little endian, the header, the tensors without gaps. Written here rather
than by the library of that name, so that the recommended format needs no extra package and a bad file gives our
errors.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import CheckpointError

MAX_HEADER = 100_000_000
_ALIGNMENT = 8
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def _require_little_endian() -> None:
    if sys.byteorder != "little":
        raise NotImplementedError("safetensors files are little endian, and this machine is not")


def _bytes_of(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()


def dump(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file as bytes.

    Args:
        tensors: by name, any shapes, dtypes of `_DTYPES`.
        metadata: strings stored in the header.

    Raises:
        TypeError: a dtype that the format does not have.
    """
    _require_little_endian()
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES:
            raise TypeError(f"safetensors files cannot hold {tensor.dtype}, the dtype of {name!r}")
    # Wide items first: every tensor is then aligned to its own item size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    chunks, position = [], 0
    for name in names:
        chunk = _bytes_of(tensors[name])
        header[name] = {
            "dtype": _NAMES[tensors[name].dtype],
            "shape": list(tensors[name].shape),
            "data_offsets": [position, position + len(chunk)],
        }
        chunks.append(chunk)
        position += len(chunk)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def looks_like(data: bytes) -> bool:
    """Whether `data` starts as a safetensors file does: a plausible length, then the brace of an object."""
    return len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_HEADER


def _header_of(data: bytes) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise CheckpointError(f"the safetensors header claims {length} bytes, the file has {len(data)}")
    try:
        header = json.loads(data[8 : 8 + length].decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError("the safetensors header is not valid JSON") from error
    if not isinstance(header, dict):
        raise CheckpointError("the safetensors header is not a JSON object")
    return header, 8 + length


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def _entry_of(name: str, entry: Any, available: int) -> tuple[torch.dtype, list[int], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"the safetensors header has no dtype, shape and data_offsets for {name!r:.80}")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(f"tensor {name!r:.80} has dtype {dtype!r:.40}, known are {', '.join(_DTYPES)}")
    lists = isinstance(shape, list) and len(shape) <= 16 and isinstance(offsets, list) and len(offsets) == 2
    if not lists or not all(map(_is_size, [*shape, *offsets])):
        raise CheckpointError(f"tensor {name!r:.80} has no valid shape and data_offsets")
    begin, end = offsets
    if end > available or end - begin != math.prod(shape) * _DTYPES[dtype].itemsize:
        raise CheckpointError(f"tensor {name!r:.80} of shape {shape} does not fit its bytes {begin} to {end}")
    return _DTYPES[dtype], shape, begin, end


def load(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata, of a safetensors file.

    Raises:
        CheckpointError: anything declared that the file does not hold, or overlapping tensors.
    """
    _require_little_endian()
    header, start = _header_of(data)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("the safetensors metadata is not a JSON object of strings")
    entries = {name: _entry_of(name, entry, len(data) - start) for name, entry in header.items()}
    if sum(end - begin for _, _, begin, end in entries.values()) > len(data) - start:
        raise CheckpointError("tensors overlap in the safetensors file")
    tensors = {}
    for name, (dtype, shape, begin, end) in entries.items():
        raw = torch.frombuffer(bytearray(data[start + begin : start + end] or b"\0" * 8), dtype=torch.uint8)
        tensors[name] = raw[: end - begin].view(dtype).reshape(shape)
    return tensors, metadata
