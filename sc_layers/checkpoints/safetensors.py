"""The safetensors format by the library of that name, and what it leaves out: metadata of bytes, errors of ours.

Layout: the header's length as 8 bytes little endian, the header as JSON, the tensors. The library checks that every
tensor lies within the file and that none overlap. It gives the metadata of files on disk only, so the header is read
here too; its length is compared with the file before anything else looks at it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor

from .errors import CheckpointError

MAX_HEADER = 100_000_000


def dump(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file as bytes.

    Args:
        tensors: tensors of any shapes by name; they may share memory, of which the file then holds several copies.
        metadata: strings stored in the header.
    """
    # The library takes neither views of one storage nor tensors that are not contiguous.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(copies, dict(metadata))


def looks_like(data: bytes) -> bool:
    """Whether `data` starts as a safetensors file does: a plausible length, then the brace of an object."""
    return len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_HEADER


def _metadata_of(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise CheckpointError(f"the safetensors header claims {length} bytes, the file has {len(data)}")
    try:
        header: Any = json.loads(data[8 : 8 + length].decode())
    except (ValueError, RecursionError) as error:
        raise CheckpointError("the safetensors header is not valid JSON") from error
    if not isinstance(header, dict):
        raise CheckpointError("the safetensors header is not a JSON object")
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("the safetensors metadata is not a JSON object of strings")
    return metadata


def load(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata, of a safetensors file.

    Args:
        data: the file.

    Raises:
        CheckpointError: anything declared that the file does not hold, or overlapping tensors.
    """
    metadata = _metadata_of(data)
    try:
        return safetensors.torch.load(data), metadata
    except Exception as error:  # of the library: its own, and KeyError, AssertionError, RuntimeError for odd headers
        raise CheckpointError(f"not a valid safetensors file: {error!s:.300}") from error
