"""Compiles the CUDA sources for the host against `emulation.h` and runs them on CPU tensors."""

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

from sc_layers.ops import building, cuda_plan
from sc_layers.ops.cuda_plan import DEVICES, Device, Shape

HERE = Path(__file__).parent
SOURCES = building.SOURCES
CACHE = Path(__file__).parents[3] / "build" / "emulation"
UNITS = ("float32.cu", "float64.cu", "float16.cu", "bfloat16.cu", "gates.cu", "launch.cpp", "plan.cpp")
FLOAT32_UNITS = ("float32.cu", "gates.cu", "launch.cpp", "plan.cpp")
SCHEDULES = {"forward": 0, "reverse": 1, "shuffled": 2}

# A card with clusters, one without, one of little shared memory, and two made-up ones whose shared memory is too small
# for four planes of more than a few hundred pixels: one must read them twice, the other can split them over a cluster.
CLUSTERS, PLAIN, SMALL = DEVICES["H100"], DEVICES["A100"], DEVICES["T4"]
TINY = Device(4, 24 * 1024, 32 * 1024, 1024, 1, 2**31 - 1, 64, 1e9, 1e11)
SPLIT = Device(4, 24 * 1024, 32 * 1024, 1024, 8, 2**31 - 1, 64, 1e9, 1e11)


class EmulationError(RuntimeError):
    """A kernel broke a rule of the emulated machine."""


class _Forward(ctypes.Structure):
    _fields_ = (
        ("shape", Shape),
        *((name, ctypes.c_void_p) for name in ("x", "logits_h", "logits_w", "scale", "bias", "gain")),
        ("eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("y", "mean", "rstd", "workspace")),
    )


_BACKWARD_INPUTS = ("grad", "x", "logits_h", "logits_w", "scale", "bias", "gain", "mean", "rstd")
_BACKWARD_RESULTS = ("grad_x", "grad_logits_h", "grad_logits_w", "grad_scale", "grad_bias", "grad_gain")


class _Backward(ctypes.Structure):
    _fields_ = (
        ("shape", Shape),
        *((name, ctypes.c_void_p) for name in (*_BACKWARD_INPUTS, *_BACKWARD_RESULTS, "workspace")),
    )


@dataclass(frozen=True)
class Count:
    """Bytes of one buffer: every access counted, and those bytes that are different."""

    read: int
    written: int
    unique_read: int
    unique_written: int


@dataclass(frozen=True)
class Run:
    """Results of a call by name, bytes by buffer, number of launches."""

    results: dict[str, Tensor]
    counts: dict[str, Count]
    launches: int
    blocks: int

    def __getitem__(self, name: str) -> Tensor:
        return self.results[name]

    def total(self, field: str) -> int:
        return sum(getattr(count, field) for count in self.counts.values())


def _digest(sources: Path, flags: Iterable[str]) -> str:
    digest = hashlib.sha256(" ".join([*building.compiler(), *flags]).encode())
    for path in sorted([*sources.glob("*.h"), *(sources / "cuda").glob("*"), *HERE.glob("emulation.*")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_library(
    sources: Path = SOURCES, flags: tuple[str, ...] = ("-O2",), float32_only: bool = False, cache: Path = CACHE
) -> Path:
    """The kernels of `sources` as a host library, kept in `cache`; quicker with `float32_only`."""
    units = FLOAT32_UNITS if float32_only else UNITS
    only = ("-DEMULATE_FLOAT32_ONLY",) if float32_only else ()
    flags = ("-std=c++20", "-fPIC", "-DSC_LAYERS_EMULATE", "-w", *only, *flags)
    folder = cache / _digest(sources, flags)
    flags = (*flags, f"-I{HERE}", f"-I{sources / 'cuda'}")
    library = folder / "emulated.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    paths = [*(sources / "cuda" / unit for unit in units), HERE / "emulation.cpp"]
    objects = [folder / f"{path.stem}.{os.getpid()}.o" for path in paths]

    def compile_one(source: Path, target: Path) -> None:
        command = [*building.compiler(), *flags, "-x", "c++", "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(compile_one, paths, objects))
    linked = folder / f"emulated.{os.getpid()}.so"
    linking = [*building.compiler(), *flags, "-shared", *map(str, objects), "-o", str(linked)]
    subprocess.run(linking, check=True, capture_output=True, text=True)
    for target in objects:
        target.unlink()
    linked.rename(library)
    return library


class Emulator:
    """Runs the launches of a compiled library under one schedule."""

    def __init__(self, library: Path) -> None:
        self.library = ctypes.CDLL(str(library))
        for name in ("forward", "backward"):
            getattr(self.library, f"emulation_{name}").restype = ctypes.c_char_p
            getattr(self.library, f"emulation_{name}_workspace").restype = ctypes.c_int64
        self.library.emulation_error.restype = ctypes.c_char_p

    def _run(
        self,
        name: str,
        call: ctypes.Structure,
        inputs: dict[str, Tensor | None],
        results: dict[str, Tensor | None],
        device: Device,
        schedule: str,
        seed: int,
    ) -> Run:
        self.library.emulation_reset(SCHEDULES[schedule], seed)
        size = getattr(self.library, f"emulation_{name}_workspace")(ctypes.byref(call.shape), ctypes.byref(device))
        if size < 0:
            raise EmulationError(self.library.emulation_error().decode())
        workspace = torch.full((size,), 255, dtype=torch.uint8)
        buffers = {**inputs, **results, "workspace": workspace}
        for buffer_name, tensor in buffers.items():
            if tensor is None:
                continue
            setattr(call, buffer_name, tensor.data_ptr())
            self.library.emulation_buffer(
                buffer_name.encode(),
                ctypes.c_void_p(tensor.data_ptr()),
                ctypes.c_uint64(tensor.numel() * tensor.element_size()),
                int(buffer_name not in inputs),
            )
        error = getattr(self.library, f"emulation_{name}")(ctypes.byref(call), ctypes.byref(device))
        if error is not None:
            raise EmulationError(error.decode())
        totals = (ctypes.c_int64 * 3)()
        self.library.emulation_totals(totals)
        present = {key: tensor for key, tensor in buffers.items() if tensor is not None}
        counts = {key: self._count(key) for key in present}
        return Run({key: present[key] for key in results if key in present}, counts, totals[0], totals[1])

    def _count(self, name: str) -> Count:
        counts = (ctypes.c_uint64 * 4)()
        self.library.emulation_counts(name.encode(), counts)
        return Count(*counts)

    def forward(
        self,
        inputs: dict[str, Tensor | None],
        device: Device,
        schedule: str = "forward",
        seed: int = 0,
        eps: float = 1e-8,
    ) -> Run:
        """y, mean and rstd for x, logits_h, logits_w, scale, bias and gain (or None); unwritten entries are NaN."""
        call = _Forward(shape=_shape(inputs), eps=eps)
        x, scale = inputs["x"], inputs["scale"]
        statistics = scale.new_full(x.shape[:2], float("nan"))
        results = {"y": torch.full_like(x, float("nan")), "mean": statistics, "rstd": statistics.clone()}
        return self._run("forward", call, inputs, results, device, schedule, seed)

    def backward(
        self, inputs: dict[str, Tensor | None], device: Device, schedule: str = "forward", seed: int = 0
    ) -> Run:
        """The gradients for grad, mean, rstd and the inputs of `forward`."""
        call = _Backward(shape=_shape(inputs))
        pairs = zip(_BACKWARD_RESULTS, ("x", "logits_h", "logits_w", "scale", "bias", "gain"), strict=True)
        results = {
            result: None if inputs[name] is None else torch.full_like(inputs[name], float("nan"))
            for result, name in pairs
        }
        return self._run("backward", call, inputs, results, device, schedule, seed)


def _shape(inputs: dict[str, Tensor | None]) -> Shape:
    x, logits_h = inputs["x"], inputs["logits_h"]
    n, c, h, w = x.shape
    channels_last = not x.is_contiguous()
    assert not channels_last or x.is_contiguous(memory_format=torch.channels_last)
    return cuda_plan.shape_of(n, c, h, w, *logits_h.shape[1:3], x.dtype, channels_last)


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
    """Inputs of a forward call; those of `backward` besides, but for the statistics."""
    generator = torch.Generator().manual_seed(seed)
    small = torch.float64 if dtype == torch.float64 else torch.float32

    def draw(*shape: int, kind: torch.dtype = small) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(kind)

    layout = torch.channels_last if channels_last else torch.contiguous_format
    return {
        "x": (draw(n, c, h, w, kind=dtype) * 2 + 1).contiguous(memory_format=layout),
        "logits_h": draw(n, k, j, 2, h),
        "logits_w": draw(n, k, j, 2, w),
        "scale": draw(n, k, c) + 1,
        "bias": draw(n, k, c),
        "gain": draw(k) if gain else None,
    }


def make_gradient(inputs: dict[str, Tensor | None], seed: int = 1) -> Tensor:
    x = inputs["x"]
    generator = torch.Generator().manual_seed(seed)
    grad = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
    return grad.contiguous(memory_format=torch.contiguous_format if x.is_contiguous() else torch.channels_last)


def is_supported() -> bool:
    return sys.platform == "linux"
