"""The safetensors format by the library of that name, and what it leaves out: metadata of bytes, errors of ours.

Layout: the header's length as 8 bytes little endian, the header as JSON, the tensors. The library checks that every
tensor lies within the file. It gives the metadata of files on disk only, so the header is read here first: its length
is compared with the file, what it says is paid for, names given twice and tensors over the same bytes are refused.
The library is imported where it is used: a training on a card can be tried where there is PyTorch alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..messages import shown
from .errors import CheckpointError
from .pickles.limits import OBJECT, Budget

MAX_HEADER = 100_000_000


def dump(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file as bytes.

    Args:
        tensors: tensors of any shapes by name; they may share memory, of which the file then holds several copies.
        metadata: strings stored in the header.
    """
    import safetensors.torch

    # The library takes neither views of one storage nor tensors that are not contiguous.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return safetensors.torch.save(copies, dict(metadata))


def looks_like(data: bytes | bytearray) -> bool:
    """Whether `data` starts as a safetensors file does: a plausible length, then the brace of an object."""
    return len(data) > 8 and data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_HEADER


def _header_of(data: bytearray, budget: Budget) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(MAX_HEADER, len(data) - 8):
        raise CheckpointError(f"the safetensors header claims {length} bytes, the file has {len(data)}")
    header = budget.parse_json(bytes(data[8 : 8 + length]), "the safetensors header")
    if not isinstance(header, dict):
        raise CheckpointError("the safetensors header is not a JSON object")
    return header


def _check_places(header: Mapping[str, Any]) -> None:
    """Refuse tensors that begin before the one in front of them ends; the library looks at everything else."""
    places: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
        if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
            raise CheckpointError(f"the tensor {shown(name)} has no place in the safetensors file")
        places.append((*offsets, name))
    places.sort()
    for (_, end, first), (start, _, second) in itertools.pairwise(places):
        if start < end:
            raise CheckpointError(f"the tensors {shown(first)} and {shown(second)} lie over the same bytes")


def load(data: bytearray, budget: Budget) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the metadata, of a safetensors file.

    Args:
        data: the file.
        budget: pays for what the header says.

    Raises:
        CheckpointError: anything declared that the file does not hold, a name given twice, or overlapping tensors.
    """
    import safetensors.torch

    header = _header_of(data, budget)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("the safetensors metadata is not a JSON object of strings")
    _check_places(header)
    budget.charge(2 * len(data) + 10 * OBJECT * len(header))
    try:
        return safetensors.torch.load(bytes(data)), metadata
    except Exception as error:  # of the library: its own, and KeyError, AssertionError, RuntimeError for odd headers
        raise CheckpointError(f"not a valid safetensors file: {error!s:.300}") from error
