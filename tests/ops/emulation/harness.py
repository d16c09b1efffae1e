"""Compiles the CUDA sources for the host against `emulation.h` and runs their steps on CPU tensors."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sc_layers.ops import building
from tests.ops.emulation.steps import STEPS, Shape, StepError, Steps, Tensors

HERE = Path(__file__).parent
SOURCES = building.SOURCES
CACHE = Path(__file__).parents[3] / "build" / "emulation"
SCHEDULES = {"forward": 0, "reverse": 1, "shuffled": 2}


@dataclass
class Count:
    """Bytes of one buffer: every access counted, and those bytes that are different."""

    read: int = 0
    written: int = 0
    unique_read: int = 0
    unique_written: int = 0


def units(sources: Path) -> list[Path]:
    """The sources that hold kernels; the query of a device is not one."""
    return [path for path in sorted((sources / "cuda").glob("*.cu")) if path.name != "device.cu"]


def _digest(sources: Path, flags: Iterable[str]) -> str:
    digest = hashlib.sha256(" ".join([*building.compiler(), *flags]).encode())
    for path in sorted([*sources.glob("*.h"), *(sources / "cuda").glob("*"), *HERE.glob("*.cpp"), *HERE.glob("*.h")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_library(sources: Path = SOURCES, flags: tuple[str, ...] = ("-O2",), cache: Path = CACHE) -> Path:
    """The kernels of `sources` as a host library, kept in `cache`."""
    flags = ("-std=c++20", "-fPIC", "-DSC_LAYERS_EMULATE", "-w", *flags)
    folder = cache / _digest(sources, flags)
    flags = (*flags, f"-I{HERE}", f"-I{sources / 'cuda'}")
    library = folder / "emulated.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    paths = [*units(sources), HERE / "emulation.cpp", HERE / "steps.cpp"]
    objects = [folder / f"{path.stem}.{os.getpid()}.o" for path in paths]

    def compile_one(source: Path, target: Path) -> None:
        command = [*building.compiler(), *flags, "-x", "c++", "-c", str(source), "-o", str(target)]
        result = subprocess.run(command, check=False, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, paths, objects))
    linked = folder / f"emulated.{os.getpid()}.so"
    linking = [*building.compiler(), *flags, "-shared", *map(str, objects), "-o", str(linked)]
    subprocess.run(linking, check=True, capture_output=True, text=True)
    for target in objects:
        target.unlink()
    linked.rename(library)
    return library


class Emulator(Steps):
    """Runs the launches of a compiled library under one schedule.

    Args:
        multiprocessors: of the emulated card; the more, the finer the work is cut.
    """

    def __init__(self, library: Path, multiprocessors: int = 4, schedule: str = "forward", seed: int = 0) -> None:
        super().__init__(library, multiprocessors)
        self.schedule, self.seed = SCHEDULES[schedule], seed
        self.counts: dict[str, Count] = {}
        self.launches: dict[str, int] = {}

    def call(self, step: str, shape: Shape, tensors: Tensors, stream: int = 0) -> None:
        """As `Steps.call`; afterwards `counts` has the bytes of every buffer, `launches` the launches of the step."""
        self.library.emulation_reset(self.schedule, self.seed)
        inputs, results = STEPS[step]
        present = {name: tensors[name] for name in (*inputs, *results, "workspace") if tensors.get(name) is not None}
        for name, tensor in present.items():
            self.library.emulation_buffer(
                name.encode(),
                ctypes.c_void_p(tensor.data_ptr()),
                ctypes.c_uint64(tensor.numel() * tensor.element_size()),
                int(name not in inputs),
            )
        super().call(step, shape, tensors)
        self.counts = {name: self._count(name) for name in present}
        totals = (ctypes.c_int64 * 2)()
        self.library.emulation_totals(totals)
        self.launches[step] = totals[0]

    def _count(self, name: str) -> Count:
        counts = (ctypes.c_uint64 * 4)()
        self.library.emulation_counts(name.encode(), counts)
        return Count(*counts)


def make_inputs(
    n: int,
    c: int,
    h: int,
    w: int,
    k: int,
    j: int,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
    gain: bool = False,
    seed: int = 0,
) -> dict[str, Tensor | None]:
    """Inputs of a forward call, all exact in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.float64 if dtype == torch.float64 else torch.float32

    def draw(*shape: int, kind: torch.dtype = small, scale: float = 1, offset: float = 0) -> Tensor:
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64) * scale + offset
        return numbers.to(dtype).to(kind)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    return {
        "x": draw(n, c, h, w, kind=dtype, scale=2, offset=1).contiguous(memory_format=layout),
        "gate_logits_h": draw(n, k, j, 2, h),
        "gate_logits_w": draw(n, k, j, 2, w),
        "scale": draw(n, k, c, offset=1),
        "bias": draw(n, k, c),
        "mask_gain": draw(k) if gain else None,
    }


def make_gradient(inputs: Tensors, seed: int = 1) -> Tensor:
    x = inputs["x"]
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    return grad.contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last)


def is_supported() -> bool:
    return sys.platform == "linux"


__all__ = ["Count", "Emulator", "StepError", "compile_library", "is_supported", "make_gradient", "make_inputs", "units"]
