"""Files that ask for much, and what reading one may cost. As a program: read each in a process with these limits.

    python -m tests.checkpoints.bombs FOLDER [NAME...]

writes the files into FOLDER and prints, as a line of JSON each, name, seconds of the processor, and what came of it.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import resource
import signal
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sc_layers.checkpoints import CheckpointError, load_network
from tests.checkpoints import samples
from tests.checkpoints.hostile import array_of, legacy_torch, pickled, safetensors_of, storage_file, text

SECONDS = 5
BYTES = 1 << 30  # above the size of the file, which is at least that of its tensors
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


class Deep(nn.Module):
    """Stands for a user's class, which builds as many layers as it is told to."""

    def __init__(self, depth: int, empty: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Identity() if empty else nn.Linear(1, 1) for _ in range(depth))


def big_text(value: bytes) -> bytes:
    return b"\x8d" + struct.pack("<Q", len(value)) + value


def persistent(kwargs: dict[str, Any], name: str = "Deep", **state: Any) -> bytes:
    module = samples.module_state({"weight": torch.zeros(2)}, {}, _init_args=(), _init_kwargs=kwargs) | state
    return pickle.dumps({"G": samples.Persistent(name, module)}, 4)


def nested_modules(levels: int, name: str, tensors: int = 1) -> bytes:
    """Modules within each other, all called by one long name."""
    parameters = {f"{name}{index}": torch.zeros(1) for index in range(tensors)}
    module: Any = samples.module_state(parameters, {})
    for _ in range(levels):
        module = samples.module_state(parameters, {name: samples.Persistent("Part", module)})
    return pickle.dumps({"G": samples.Persistent("Net", module | {"_init_args": (), "_init_kwargs": {}})}, 4)


def repeated_module(times: int, tensors: int) -> bytes:
    """One large module as every part of another one."""
    weight = torch.zeros(1)
    part = samples.Persistent("Part", samples.module_state({f"w{index}": weight for index in range(tensors)}, {}))
    parts = {f"p{index}": part for index in range(times)}
    module = samples.module_state({}, parts, _init_args=(), _init_kwargs={})
    return pickle.dumps({"G": samples.Persistent("Net", module)}, 4)


def unexpected(count: int) -> bytes:
    weight = torch.zeros(1)
    return persistent({"depth": 1}, _parameters={f"{'n' * 100}{index}": weight for index in range(count)})


def arrays_of_one_memo(count: int, raw: bytes, dtype: str, as_text: bool) -> bytes:
    """Many arrays over the same remembered bytes."""
    one = array_of((len(raw) // 4,), b"", dtype)
    literal = b"B" + struct.pack("<I", 0)
    assert one.count(literal) == 1
    remembered = (text(raw) if as_text else b"B" + struct.pack("<I", len(raw)) + raw) + b"r\x00\x01\x00\x00" + b"0"
    return pickled(remembered + b"(" + one.replace(literal, b"j\x00\x01\x00\x00") * count + b"t", 3)


def views_of_one_storage(count: int, numbers: int) -> bytes:
    storage = torch.zeros(numbers)
    buffer = io.BytesIO()
    torch.save({"g_ema": {f"w{index}": storage.view(-1) for index in range(count)}}, buffer)
    return buffer.getvalue()


def members(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(count):
            archive.writestr(f"a/{index}", b"")
    return buffer.getvalue()


def rosinality(state: dict[str, Any]) -> bytes:
    return samples.saved({"g_ema": state, "args": None}, True)


def pt_of(**changes: Any) -> bytes:
    """Our `.pt` in which something stands where something else should."""
    content = torch.load(io.BytesIO(samples.all_formats()["pt"]), weights_only=True)
    content["networks"]["Q"].update(changes.pop("Q", {}))
    return samples.saved(content | changes, True)


def tensorflow(**fields: Any) -> bytes:
    networks = samples.tensorflow_tuple()
    networks[0].static_kwargs.update(fields.pop("kwargs", {}))
    networks[0].__dict__.update(fields)
    return pickle.dumps(networks, 4)


NESTED: Any = [[[{"a": [1, 2, (3,)]}] * 3] * 3] * 3
OTHERS = {
    "a tensor": torch.zeros(2, 2),
    "an array": samples.np.zeros((2, 2)),
    "a nested list": NESTED,
    "2^1000": 2**1000,
}
MILLION = 1_000_000
LONG = "n" * MILLION

# Every file ends in a CheckpointError, after at most SECONDS and BYTES.
BOMBS: dict[str, Callable[[], bytes]] = {
    "long names of nested modules": lambda: nested_modules(100, LONG),
    "names of nested modules": lambda: nested_modules(120, "n" * 10_000, 100),
    "one module repeated": lambda: repeated_module(900, 900),
    "a shared text 20,000 times": lambda: persistent({"names": [LONG] * 20_000}),
    "a shared text as arguments": lambda: tensorflow(kwargs={"nonlinearity": [LONG] * 20_000}),
    "a shared text as a module list": lambda: tensorflow(kwargs={"module_list": [LONG] * 20_000}),
    "a shared text as the kind": lambda: pt_of(Q={"kind": [LONG] * 20_000}),
    "big-endian arrays of one memo": lambda: arrays_of_one_memo(2000, b"\0" * MILLION, ">f4", False),
    "text arrays of one memo": lambda: arrays_of_one_memo(2000, b"a" * MILLION, "<f4", True),
    "views of one storage": lambda: views_of_one_storage(20_000, MILLION),
    "2^400000 for a resolution": lambda: tensorflow(kwargs={"resolution": 2**400_000}),
    "2^400000 for a class": lambda: persistent({"depth": 2**400_000}),
    "5,000 digits": lambda: pickled(b"I" + b"9" * 5000 + b"\n"),
    "5,000 digits, long": lambda: pickled(b"L" + b"9" * 5000 + b"L\n"),
    "JSON of 39 MB of lists": lambda: safetensors_of(b'{"a":[' + b"[]," * 13 * MILLION + b"[]]}"),
    "JSON of 39 MB of brackets": lambda: safetensors_of(b'{"a":' + b"[" * 39 * MILLION),
    "JSON with a number of 39 MB": lambda: safetensors_of(b'{"a":' + b"9" * 39 * MILLION + b"}"),
    "JSON with a fraction of 39 MB": lambda: safetensors_of(b'{"a":0.' + b"9" * 39 * MILLION + b"}"),
    "JSON with a name of 39 MB": lambda: safetensors_of(b'{"' + b"a" * 39 * MILLION + b'":{}}'),
    "JSON with 5,000 digits": lambda: safetensors_of(b'{"a":{"shape":[' + b"9" * 5000 + b"]}}"),
    "JSON with a name twice": lambda: safetensors_of(
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b"\0" * 8,
    ),
    "tensors over the same bytes": lambda: safetensors_of({"a": ENTRY, "b": ENTRY}, b"\0" * 8),
    "a million empty lists": lambda: pickled(b"(" + b"]" * 999_000 + b"t"),
    "a million empty sets": lambda: pickled(b"(" + b"\x8f" * 999_000 + b"t", 4),
    "a million dicts of one entry": lambda: pickled(b"(" + b"}K\x01K\x01s" * 240_000 + b"t"),
    "a million remembered numbers": lambda: pickled(
        b"K\x01" + b"".join(b"r" + struct.pack("<I", index) for index in range(990_000))
    ),
    "a wide text": lambda: pickled(big_text(b"a" * 90 * MILLION + "\U0001f600".encode()), 4),
    "texts of escapes": lambda: pickled(b"V" + b"a" * 90 * MILLION + b"\\U0001f600\n"),
    "3,000,000 layers": lambda: persistent({"depth": 3_000_000}),
    "3,000,000 empty layers": lambda: persistent({"depth": 3_000_000, "empty": True}),
    "20,000 unexpected tensors": lambda: unexpected(20_000),
    "a million members": lambda: members(300_000),
    "a name of dots": lambda: rosinality({"convs." + "." * 40 * MILLION: torch.zeros(1)}),
    "an array of nothing, 2^47 wide": lambda: pickled(array_of((0, 2**47, 2**47), b"")),
    "a tensor of nothing, 2^47 wide": lambda: storage_file(0, b"", (0, 2**47, 2**47), (1, 1, 1)),
    "older file of a tensor of nothing": lambda: legacy_torch(pickled(array_of((0, 2**47, 2**47), b""))),
    **{f"{name} as the version": lambda value=value: pt_of(sc_layers=value) for name, value in OTHERS.items()},
    **{f"{name} as the kind": lambda value=value: pt_of(Q={"kind": value}) for name, value in OTHERS.items()},
    **{f"{name} as the networks": lambda value=value: pt_of(networks=value) for name, value in OTHERS.items()},
    **{
        f"{name} as the module list": lambda value=value: pt_of(Q={"config": {"module_list": value}})
        for name, value in OTHERS.items()
    },
    **{
        f"{name} as TensorFlow's version": lambda value=value: tensorflow(version=value)
        for name, value in OTHERS.items()
    },
    **{
        f"{name} as TensorFlow's {field}": lambda value=value, field=field: tensorflow(kwargs={field: value})
        for name, value in OTHERS.items()
        for field in ("resolution", "module_list", "fmap_decay", "latent_size", "dtype")
    },
    **{f"{name} as arguments": lambda value=value: persistent({}, _init_args=value) for name, value in OTHERS.items()},
    **{f"{name} as a depth": lambda value=value: persistent({"depth": value}) for name, value in OTHERS.items()},
}


def _limit(size: int) -> None:
    """Let this process take so much more, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + size + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    spent = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(spent.ru_utime + spent.ru_stime) + 1 + SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def _read(path: Path) -> str:
    _limit(path.stat().st_size)
    try:
        load_network(path, classes={"Deep": Deep}, impl="reference")
    except CheckpointError as error:
        return str(error)
    return "loaded"


def _forked(action: Callable[[], str]) -> tuple[str, float]:
    """What `action` returns in a process of its own, or how that ended, and its seconds."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = action()
        except BaseException as error:
            text = f"{type(error).__name__}: {error!s:.500}"
        os.write(writing, text.encode(errors="replace")[:10_000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        text = pipe.read().decode()
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        text = f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return text, usage.ru_utime + usage.ru_stime


def main(folder: Path, names: list[str]) -> None:
    torch.set_num_threads(1)
    load_network(io.BytesIO(samples.all_formats()["pt"]), impl="reference")  # everything is imported
    for name in names or BOMBS:
        path = folder / "bomb"
        made, _ = _forked(lambda name=name, path=path: str(path.write_bytes(BOMBS[name]())))
        assert made.isdigit(), f"{name}: {made}"
        outcome, seconds = _forked(lambda path=path: _read(path))
        print(json.dumps([name, int(made), round(seconds, 2), outcome.replace(f"{path}: ", "FILE: ", 1)]), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
