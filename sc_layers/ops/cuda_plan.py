"""How the CUDA kernels would cut a call into blocks on a given device, and what a model says that costs.

Needs a C++ compiler but no GPU and no CUDA toolkit: the planner is plain C++ (`csrc/cuda/plan.cpp`, explained in
`README.md`), compiled here on its own.
"""

from __future__ import annotations

import ctypes
import functools
from typing import NamedTuple

import torch

from . import building

SCALARS = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3}


def _structure(name: str, **fields: type) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


_i32, _i64, _double, _bool = ctypes.c_int, ctypes.c_int64, ctypes.c_double, ctypes.c_bool


class Shape(ctypes.Structure):
    """Mirror of `Shape` in csrc/constrict.h."""

    _fields_ = (*((name, _i64) for name in "nchwkj"), ("scalar", _i32), ("channels_last", _bool))


class Device(ctypes.Structure):
    """Mirror of `Device` in csrc/cuda/plan.h: what a plan and its estimate depend on."""

    _fields_ = (
        ("multiprocessors", _i32),
        ("shared_per_block", _i32),
        ("shared_per_multiprocessor", _i32),
        ("threads_per_multiprocessor", _i32),
        ("max_cluster", _i32),
        ("max_grid", _i64),
        ("lanes", _i32),
        ("clock", _double),
        ("bandwidth", _double),
    )


_LAYOUT = (
    "features",
    "gradients",
    "weights",
    "weight_gradients",
    "styles",
    "sums",
    "totals",
    "statistics",
    "factors",
    "bands_h",
    "bands_w",
    "span",
    "bytes",
)


class Layout(ctypes.Structure):
    """Mirror of `Layout` in csrc/cuda/plan.h: offsets in a block's shared memory."""

    _fields_ = tuple((name, _i32) for name in _LAYOUT)


class Plan(ctypes.Structure):
    """Mirror of `Plan` in csrc/cuda/plan.h: the cut of one main launch."""

    _fields_ = (
        ("on_chip", _bool),
        *((name, _i32) for name in ("slice", "slices", "cluster", "batch", "batch_log2", "batches", "groups")),
        *((name, _i32) for name in ("chunk", "chunk_log2", "segments", "parts", "row_pair_mask", "quad_mask")),
        *((name, _i32) for name in ("together", "stride", "band_rows")),
        ("bands_on_chip", _bool),
        ("shared", Layout),
        ("resident", _i32),
        ("blocks", _i64),
    )


class Estimate(ctypes.Structure):
    """Mirror of `Estimate` in csrc/cuda/plan.h: what a call costs by the model."""

    _fields_ = (
        *((name, _double) for name in ("seconds", "ideal_seconds", "feature_bytes", "other_bytes")),
        *((name, _double) for name in ("memory_seconds", "instruction_seconds", "last_wave_seconds")),
        ("launches", _i32),
    )


# From data sheets and the CUDA programming guide: multiprocessors, shared memory, clocks under load, memory.
DEVICES = {
    "A100": Device(108, 163 * 1024, 164 * 1024, 2048, 1, 2**31 - 1, 96, 1.41e9, 2.039e12),
    "H100": Device(132, 227 * 1024, 228 * 1024, 2048, 8, 2**31 - 1, 128, 1.755e9, 3.35e12),
    "RTX 4090": Device(128, 99 * 1024, 100 * 1024, 1536, 1, 2**31 - 1, 128, 2.52e9, 1.008e12),
    "T4": Device(40, 64 * 1024, 64 * 1024, 1024, 1, 2**31 - 1, 96, 1.35e9, 3.2e11),
}


class Prediction(NamedTuple):
    plan: Plan
    estimate: Estimate


def shape_of(
    n: int, c: int, h: int, w: int, k: int, j: int, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> Shape:
    return Shape(n, c, h, w, k, j, SCALARS[dtype], channels_last)


@functools.cache
def _planner() -> ctypes.CDLL:
    return ctypes.CDLL(str(building.build(building.planner_recipe())))


def predict(shape: Shape, device: Device, *, backward: bool = False) -> Prediction:
    """Plan and estimate of one forward or backward call.

    Raises:
        ValueError: nothing fits into the device's shared memory.
        BuildError: no C++ compiler.
    """
    plan, estimate = Plan(), Estimate()
    arguments = (ctypes.byref(part) for part in (shape, device))
    results = (ctypes.byref(part) for part in (plan, estimate))
    if _planner().sc_layers_cuda_plan(*arguments, int(backward), *results) != 0:
        raise ValueError(f"no cut of this work fits into {device.shared_per_block} bytes of shared memory")
    return Prediction(plan, estimate)
