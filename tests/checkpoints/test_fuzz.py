"""Damaged and forged checkpoints: whatever is done to a file, nothing in it runs and only our errors are raised."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import resource
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sc_layers.checkpoints import load_network
from sc_layers.checkpoints.errors import CheckpointError
from tests.checkpoints import samples
from tests.checkpoints.audit import watched
from tests.checkpoints.hostile import safetensors_of
from tests.checkpoints.samples import all_formats


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported() -> None:
    """What PyTorch imports when it makes its first network is no doing of a forged file."""
    for data in all_formats().values():
        load_network(io.BytesIO(data), impl="reference")


RUNS = [1000, pytest.param(10_000, marks=pytest.mark.sweep)]
MOST_MEGABYTES = 600
_OPCODES = [value for name, value in vars(pickle).items() if name.isupper() and isinstance(value, bytes)]
_LENGTHS = [0, 1, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**64 - 1]
_NAMES = [
    b"posix\nsystem",
    b"builtins\nexec",
    b"builtins\neval",
    b"os\nsystem",
    b"subprocess\nPopen",
    b"builtins\ngetattr",
]
_CALL = [b"c" + name + b"\n(S'touch forged'\ntR" for name in _NAMES]


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """`data` with one to four kinds of damage."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        start = rng.randrange(len(result) + 1)
        length = rng.choice((1, 2, 8, 64))
        kind = rng.randrange(9)
        if kind == 0 and result:
            result[start % len(result)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[start : start + length] = rng.randbytes(length)
        elif kind == 2:
            del result[start:]
        elif kind == 3:
            del result[start : start + length]
        elif kind == 4:
            result[start:start] = result[start : start + length]
        elif kind == 5:
            source = rng.choice(others)
            begin = rng.randrange(len(source))
            result[start:start] = source[begin : begin + length]
        elif kind == 6:
            width = rng.choice((1, 4, 8))
            result[start : start + width] = (rng.choice(_LENGTHS) % 256**width).to_bytes(width, "little")
        elif kind == 7:
            result[start : start + 1] = rng.choice(_OPCODES)
        else:
            start = rng.choice((start, 2))  # 2 is behind the protocol, where any opcode may follow
            result[start:start] = rng.choice(_CALL)
    return bytes(result)


def mutate_member(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """A zip file in which one member is damaged and the checksums are right again."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    victim = rng.choice([info.filename for info in archive.infolist() if info.file_size])
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as forged:
        for info in archive.infolist():
            content = archive.read(info)
            forged.writestr(info.filename, mutate(content, rng, others) if info.filename == victim else content)
    return buffer.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("runs", RUNS)
def test_damaged_checkpoints_run_nothing_and_raise_only_our_errors(runs: int) -> None:
    files = all_formats()
    rng = random.Random(20210619)
    contents = list(files.values())
    weights = [1 if name.startswith(("tensorflow", "pkl")) else 3 for name in files]
    outcomes: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for run in range(runs):
        data = rng.choices(contents, weights)[0]
        is_zip = data.startswith(b"PK") and rng.random() < 0.8
        damaged = mutate_member(data, rng, contents) if is_zip else mutate(data, rng, contents)
        with watched() as events:
            try:
                load_network(io.BytesIO(damaged), impl="reference")
                outcomes["loaded"] += 1
            except CheckpointError as error:
                outcomes[type(error).__name__] += 1
        assert not events, f"run {run} caused {events}"
    kilobytes = 1024 if sys.platform == "darwin" else 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 / kilobytes
    assert grown < MOST_MEGABYTES, f"memory grew by {grown:.0f} MB"
    print(dict(outcomes))
    assert min(outcomes["loaded"], outcomes["CheckpointError"], outcomes["UntrustedCheckpointError"]) > runs // 200


_PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
)
_KEYS = st.text(max_size=10) | st.integers(-3, 3)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
VALUES = st.recursive(
    _PLAIN
    | st.builds(torch.zeros, st.lists(st.integers(0, 3), max_size=3))
    | st.builds(np.zeros, st.lists(st.integers(0, 3), max_size=3), st.sampled_from(["<f4", ">f8", "<i8", "|b1"]))
    | st.builds(np.float32, st.floats(width=32)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(_KEYS, inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.builds(samples.Persistent, st.text(max_size=10), st.dictionaries(st.text(max_size=10), inner, max_size=3))
    ),
    max_leaves=10,
)


def _inner(value: Any) -> Any:
    """What of an object a pickle holds, where it is no container itself."""
    if isinstance(value, samples.Persistent):
        return value.meta
    return vars(value) if isinstance(value, samples.Network) else value


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every container within `value` with each of its keys: there something else may stand."""
    value = _inner(value)
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])
    if isinstance(value, tuple):
        for part in value:
            yield from places(part)


def _pt_content() -> Any:
    return torch.load(io.BytesIO(all_formats()["pt"]), weights_only=True)


def _safetensors_header() -> Any:
    data = all_formats()["safetensors"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header["__metadata__"]["sc_layers"] = json.loads(header["__metadata__"]["sc_layers"])
    return header


def _safetensors_file(header: Any) -> bytes:
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and not isinstance(metadata.get("sc_layers"), (str, type(None))):
        metadata["sc_layers"] = json.dumps(metadata["sc_layers"])
    data = all_formats()["safetensors"]
    return safetensors_of(header, data[8 + int.from_bytes(data[:8], "little") :])


def _pickled(content: Any) -> bytes:
    return pickle.dumps(content, 4)


# What a file of the format holds, how it is written, and what may stand anywhere within.
FORMATS = {
    "safetensors": (_safetensors_header, _safetensors_file, JSON_VALUES),
    "pt": (_pt_content, samples.saved, VALUES),
    "tensorflow": (lambda: list(samples.tensorflow_tuple()), _pickled, VALUES),
    "stylegan2 of tensorflow": (lambda: list(samples.stylegan2_tuple()), _pickled, VALUES),
    "persistence": (samples.persistence_dict, _pickled, VALUES),
    "rosinality": (samples.rosinality_dict, samples.saved, VALUES),
}


class Net(torch.nn.Module):
    """A class of the user's that takes whatever the file says."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_whatever_stands_in_a_file_only_our_errors_are_raised(name: str, data: st.DataObject) -> None:
    make, write, values = FORMATS[name]
    content = copy.deepcopy(make())
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(content))
        container, key = found[data.draw(st.integers(0, 2**16)) % len(found)]
        container[key] = copy.deepcopy(data.draw(values))
    try:
        forged = write(content)
    except Exception:  # the format can't hold it
        return
    message = ""
    with watched() as events:
        try:
            load_network(io.BytesIO(forged), impl="reference", classes={"Net": Net})
        except CheckpointError as error:
            message = str(error)
    assert not events
    assert len(message) < 2100
    assert "it cannot be read" not in message, "a failure that nobody looked for"
