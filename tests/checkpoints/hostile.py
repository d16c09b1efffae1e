"""Makers of forged checkpoints, opcode by opcode."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from typing import Any

import torch

COMMAND = b"touch hostile-was-here"


class Reduces:
    """Pickles as a call of `function` with `args`, as `__reduce__` of a hostile class does."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.function, self.args


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def call(module: bytes, name: bytes, argument: bytes = text(COMMAND)) -> bytes:
    """Opcodes that leave `module.name(argument)` on the stack."""
    return b"c" + module + b"\n" + name + b"\n(" + argument + b"tR"


def pickled(opcodes: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + opcodes + b"."


def nested_storage(payload: bytes) -> bytes:
    """An ordinary pickle that asks `torch.storage._load_from_bytes` to read `payload`."""
    raw = b"B" + struct.pack("<I", len(payload)) + payload
    return pickled(b"c" + b"torch.storage\n_load_from_bytes\n" + raw + b"\x85R", 3)


def legacy_torch(content: bytes) -> bytes:
    """A file of the older torch format around one pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join([*head, content, pickle.dumps([], 2)])


def storage_file(count: int, data: bytes, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A zip file of torch.save with one tensor, whose declarations may lie."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count) if isinstance(value, Storage) else None

    tensor = Reduces(torch._utils._rebuild_tensor_v2, Storage(), offset, shape, stride, False, {})
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"g_ema": {"weight": tensor}})
    return zip_of({"data.pkl": buffer.getvalue(), "data/0": data})


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def array_of(shape: tuple[int, ...], raw: bytes, dtype: str = "f4") -> bytes:
    """Opcodes of a numpy array whose shape or dtype may lie."""
    numbers = b"".join(b"\x8a\x08" + struct.pack("<q", size) for size in shape)
    head = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    kind = (
        b"cnumpy\ndtype\n"
        + text(dtype.encode())
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"<")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    return head + b"(K\x01(" + numbers + b"t" + kind + b"\x89B" + struct.pack("<I", len(raw)) + raw + b"tb"


def safetensors_of(header: Any, data: bytes = b"") -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(encoded).to_bytes(8, "little") + encoded + data


def doubling(levels: int, pair: bytes) -> bytes:
    """A value that holds the one before twice, `levels` times: small in memory, endless for whoever walks it."""
    return b"N" + (b"q\x000h\x00h\x00" + pair) * levels
