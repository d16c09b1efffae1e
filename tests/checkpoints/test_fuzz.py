"""Damaged and forged checkpoints: whatever is done to a file, nothing in it runs and only our errors are raised."""

from __future__ import annotations

import io
import pickle
import random
import resource
import sys
import zipfile
from collections import Counter

import pytest

from sc_layers.checkpoints import load_network
from sc_layers.checkpoints.errors import CheckpointError
from tests.checkpoints.audit import watched
from tests.checkpoints.samples import all_formats

RUNS = 10_000
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
def test_ten_thousand_damaged_checkpoints_run_nothing_and_raise_only_our_errors() -> None:
    files = all_formats()
    rng = random.Random(20210619)
    contents = list(files.values())
    weights = [1 if name.startswith(("tensorflow", "pkl")) else 3 for name in files]
    outcomes: Counter[str] = Counter()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for run in range(RUNS):
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
    assert min(outcomes["loaded"], outcomes["CheckpointError"], outcomes["UntrustedCheckpointError"]) > RUNS // 200
