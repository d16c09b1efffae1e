"""Broken kernels are caught by the emulation: this is what makes its silence about the real ones worth something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sc_layers.ops import building
from tests.ops.emulation import harness

pytestmark = pytest.mark.skipif(not harness.is_supported(), reason="the emulation runs on Linux")

ROOT = Path(__file__).parents[2]
QUICK = ("-O1",)
SANITIZER = ("-O1", "-g1", "-fsanitize=address", "-fno-omit-frame-pointer")

# File, text, replacement, and what the report must say.
MUTANTS = {
    "barrier before sums are handed on": (
        "sums.cu",
        "__syncthreads(); hand_on<T",
        "hand_on<T",
        "deviates|in plain PyTorch|other results",
    ),
    "barrier before a team's sums are read": (
        "device.cuh",
        "__syncthreads(); #pragma unroll for (int i = 0; i < kCount; ++i) { values[i] = 0;",
        "#pragma unroll\n for (int i = 0; i < kCount; ++i) { values[i] = 0;",
        "deviates|in plain PyTorch|other results",
    ),
    "barrier before rows are read": (
        "stream.cu",
        "__syncthreads(); if (present <= 0) return;",
        "if (present <= 0) return;",
        "deviates|in plain PyTorch|other results",
    ),
    "one access too many": (
        "device.cuh",
        "if (access * line.kEach < count) { const auto bits",
        "if (access * line.kEach <= count) { const auto bits",
        "beyond the end|outside of all buffers",
    ),
    "alignment not looked at": (
        "device.cuh",
        "stride % Line<T>::kEach == 0",
        "true",
        "misaligned access of 16 bytes",
    ),
    "lane leaves before its warp exchanges": (
        "statistics.cu",
        "const int64_t plane = exists ? unit / cuts : 0;",
        "if (!exists) return; const int64_t plane = unit / cuts;",
        "with a lane that has ended",
    ),
    "blocks turned the wrong way": (
        "sums.cu",
        "result.piece[p][1] = transpose(piece[p][2]);",
        "result.piece[p][1] = transpose(piece[p][1]);",
        "deviates|in plain PyTorch",
    ),
    "small pieces left out": (
        "sums.cu",
        "for (int below = kTable - 1; below >= 0; --below)",
        "for (int below = 0; below >= 0; --below)",
        "deviates|in plain PyTorch",
    ),
    "writes to its input": (
        "stream.cu",
        "store_line<kWide>(args.result + offset",
        "store_line<kWide>(const_cast<T*>(args.x) + offset",
        "read-only x",
    ),
}


def check(library: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.ops.emulation.check", str(library)]
    env = {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=600)


def mutated(tmp_path: Path, name: str, old: str, new: str) -> Path:
    """A copy of the sources with one replacement; `old` is found however it is laid out."""
    sources = tmp_path / "csrc"
    shutil.copytree(building.SOURCES, sources)
    path = sources / "cuda" / name
    text = path.read_text()
    pattern = re.compile(r"\s*".join(map(re.escape, old.split())))
    assert len(pattern.findall(text)) == 1, f"{old!r} occurs {len(pattern.findall(text))} times in {name}"
    path.write_text(pattern.sub(lambda _: new, text))
    return sources


def test_unbroken_kernels_pass() -> None:
    result = check(harness.compile_library(flags=QUICK))
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda name: name.replace(" ", "-"))
def test_broken_kernel_is_caught(mutant: str, tmp_path: Path) -> None:
    name, old, new, expected = MUTANTS[mutant]
    sources = mutated(tmp_path, name, old, new)
    result = check(harness.compile_library(sources, QUICK, cache=tmp_path))
    assert result.returncode != 0
    assert re.search(expected, result.stderr), result.stderr


def _barriers() -> list[tuple[str, int]]:
    """Every barrier but those that the code itself calls spare: others nearby do their work."""
    places = []
    for path in sorted((building.SOURCES / "cuda").glob("*.cu*")):
        found = re.finditer(r"__syncthreads\(\);(?!  // spare)", path.read_text())
        places += [(path.name, match.start()) for match in found]
    return places


@pytest.mark.sweep
@pytest.mark.parametrize("barrier", _barriers(), ids=lambda place: f"{place[0]}-{place[1]}")
def test_every_barrier_is_needed(barrier: tuple[str, int], tmp_path: Path) -> None:
    sources = tmp_path / "csrc"
    shutil.copytree(building.SOURCES, sources)
    path = sources / "cuda" / barrier[0]
    text = path.read_text()
    path.write_text(text[: barrier[1]] + ";" + text[barrier[1] + len("__syncthreads();") :])
    assert check(harness.compile_library(sources, QUICK, cache=tmp_path)).returncode != 0


def _sanitizer_runtime() -> str:
    command = [*building.compiler(), "-print-file-name=libasan.so"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _check_sanitized(sources: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    runtime = _sanitizer_runtime()
    if not Path(runtime).is_absolute():
        pytest.skip("this compiler has no address sanitizer")
    library = harness.compile_library(sources, SANITIZER, cache=cache)
    # Leaks at exit are Python's own business.
    return check(library, LD_PRELOAD=runtime, ASAN_OPTIONS="detect_leaks=0:detect_stack_use_after_return=0")


@pytest.mark.slow
def test_address_sanitizer_finds_nothing() -> None:
    result = _check_sanitized(building.SOURCES, harness.CACHE)
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
def test_address_sanitizer_catches_shared_memory_overrun(tmp_path: Path) -> None:
    sources = mutated(tmp_path, "statistics.cu", "3 * kWarps * sizeof(A)", "2 * kWarps * sizeof(A)")
    result = _check_sanitized(sources, tmp_path)
    assert result.returncode != 0
    assert "heap-buffer-overflow" in result.stderr
