"""Files of `torch.save`, both the zip format and the older one, read by our own stack machine.

Source: the layouts that `torch.serialization` writes: a zip of `data.pkl` and `data/KEY` per storage; or pickles of a
magic number, a version, the system, the object, the storages' keys, followed by each storage's count and bytes.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import torch

from ...files import read_file
from ...messages import shown
from ..errors import CheckpointError, naming
from .limits import OBJECT, Budget
from .machine import Machine
from .names import names
from .records import StorageRecord, settle

ZIP_MAGIC = b"PK\x03\x04"
_ZIP_ENTRY = b"PK\x01\x02"  # begins an entry of the directory at the end
_ZIP_HEAD = 30  # bytes before a member's name
_MEMBER = 10 * OBJECT
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_START = b"\x80\x02\x8a\x0a" + _LEGACY_MAGIC.to_bytes(10, "little")
_LEGACY_VERSION = 1001


def is_torch_file(data: bytes | bytearray) -> bool:
    """Whether `data` starts as a file of `torch.save` does."""
    return data.startswith((ZIP_MAGIC, _LEGACY_START))


def load(data: bytearray, budget: Budget) -> Any:
    """What was saved: plain Python, tensors, and records of objects.

    Args:
        data: the file; tensors are views of it.
        budget: pays for what it unfolds to.

    Raises:
        CheckpointError: a damaged file, or one that declares more than it holds.
        UntrustedCheckpointError: it asks for a name outside the closed table.
    """
    content = _load_zip(data, budget) if data.startswith(ZIP_MAGIC) else _load_legacy(data, budget)
    return settle(content, budget)


def read_torch_file(path: str | os.PathLike[str]) -> Any:
    """What `torch.save` wrote into a file: plain Python, tensors on the CPU, and records of objects.

    Args:
        path: the file, of either format of `torch.save`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, a pipe or a device.
        CheckpointError: not such a file, a damaged one, or one that declares more than it holds.
        UntrustedCheckpointError: it asks for a name outside the closed table.
    """
    data = read_file(path)
    with naming(path):
        if not is_torch_file(data):
            raise CheckpointError("not a file of torch.save")
        return load(data, Budget(len(data)))


def read_storage(data: bytes, budget: Budget) -> StorageRecord:
    """A storage that an ordinary pickle holds as a nested file of the older format.

    Args:
        data: the nested file.
        budget: pays for its numbers.

    Raises:
        CheckpointError: it holds anything else.
    """
    if not data.startswith(_LEGACY_START):
        raise CheckpointError("a storage inside the pickle is not in the format of torch.save")
    budget.charge(len(data))
    storage = _load_legacy(bytearray(data), budget)
    if not isinstance(storage, StorageRecord):
        raise CheckpointError(f"a storage inside the pickle holds a {type(storage).__name__}")
    return storage


def _storage_of(persistent_id: Any) -> tuple[torch.dtype, str, int]:
    """dtype, key and count from `("storage", type, key, location, count[, view])`."""
    if not isinstance(persistent_id, tuple) or len(persistent_id) not in (5, 6) or persistent_id[0] != "storage":
        raise CheckpointError("a reference to something that is not a storage")
    _, dtype, key, _, count, *view = persistent_id
    if view not in ([], [None]):
        raise CheckpointError("a storage that is a view of another one")
    if not isinstance(dtype, torch.dtype) or not isinstance(key, str) or type(count) is not int or count < 0:
        raise CheckpointError("a reference to a storage without type, key and count")
    return dtype, key, count


class _Storages:
    """The storages of a file by key; `fetch` gives the bytes of one, or None when they come later."""

    def __init__(self, budget: Budget, fetch: Callable[[str], memoryview | None]) -> None:
        self.budget = budget
        self.fetch = fetch
        self.records: dict[str, StorageRecord] = {}

    def __call__(self, persistent_id: Any) -> StorageRecord:
        dtype, key, count = _storage_of(persistent_id)
        if key not in self.records:
            self.records[key] = StorageRecord(dtype, count)
            raw = self.fetch(key)
            if raw is not None:
                self.fill(key, raw)
        record = self.records[key]
        if (record.dtype, record.count) != (dtype, count):
            raise CheckpointError(f"two sizes or types are given for the storage {shown(key)}")
        return record

    def fill(self, key: str, raw: memoryview) -> None:
        self.budget.charge(len(raw))
        self.records[key].fill(raw)


def _load_legacy(data: bytearray, budget: Budget) -> Any:
    budget.charge(len(data))
    stream = io.BytesIO(data)
    storages = _Storages(budget, lambda key: None)
    table = names(budget, read_storage)
    magic, version, system = (Machine(table, budget).run(stream) for _ in range(3))
    if magic != _LEGACY_MAGIC or version != _LEGACY_VERSION:
        raise CheckpointError("not a file of torch.save")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise CheckpointError("tensors are stored in big-endian order")
    content = Machine(table, budget, storages).run(stream)
    keys = Machine(table, budget).run(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("the list of storages is missing")
    for key in keys:
        if key not in storages.records:
            raise CheckpointError(f"no tensor uses the storage {shown(key)}")
        record = storages.records[key]
        count = int.from_bytes(stream.read(8), "little")
        if count != record.count:
            raise CheckpointError(f"a storage of {shown(record.count)} numbers is followed by {count}")
        start = stream.tell()
        end = stream.seek(start + count * record.dtype.itemsize)
        storages.fill(key, memoryview(data)[start:end])
    return content


class _Archive:
    """A zip file whose members, addressed by path below the top folder, lie uncompressed within it."""

    def __init__(self, data: bytearray, budget: Budget) -> None:
        entries = data.count(_ZIP_ENTRY)  # the library makes an object of each before it can be asked for their number
        budget.token(entries)
        budget.charge(len(data) + _MEMBER * entries)
        self.data = memoryview(data)
        try:
            with zipfile.ZipFile(io.BytesIO(data)) as file:
                members = file.infolist()
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise CheckpointError(f"not a valid zip file: {error!s:.200}") from error
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
                raise CheckpointError(f"member {shown(member.filename)} is compressed, which torch.save never does")
        if sum(member.file_size for member in members) > len(data):
            raise CheckpointError("the members of the zip file are larger than the file")
        self.members = {member.filename.partition("/")[2]: member for member in members}

    def read(self, name: str) -> memoryview:
        """A member's bytes, where they lie. Programs may leave their checksums out, which are then 0."""
        if name not in self.members:
            holds = ", ".join(sorted(self.members)[:5])
            raise CheckpointError(f"the zip file has no member {shown(name)}, as files of torch.save do: {holds:.200}")
        member = self.members[name]
        head = self.data[member.header_offset : member.header_offset + _ZIP_HEAD]
        start = member.header_offset + _ZIP_HEAD + sum(int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
        content = self.data[start : start + member.file_size]
        is_whole = bytes(head[: len(ZIP_MAGIC)]) == ZIP_MAGIC and len(content) == member.file_size
        if not is_whole or (member.CRC != 0 and zlib.crc32(content) != member.CRC):
            raise CheckpointError(f"member {shown(name)} of the zip file is damaged")
        return content


def _load_zip(data: bytearray, budget: Budget) -> Any:
    archive = _Archive(data, budget)
    content = bytes(archive.read("data.pkl"))
    if "byteorder" in archive.members and bytes(archive.read("byteorder")) != b"little":
        raise CheckpointError("tensors are stored in big-endian order")
    storages = _Storages(budget, lambda key: archive.read(f"data/{key}"))
    return Machine(names(budget, read_storage), budget, storages).run(io.BytesIO(content))
