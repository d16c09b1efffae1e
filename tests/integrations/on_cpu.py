"""Run a script of a code base that insists on a GPU on the CPU: `python on_cpu.py SCRIPT [ARGUMENT...]`.

Random numbers are seeded. Every device "cuda" that reaches a PyTorch function becomes the CPU, and the GPU's clocks and
counters become idle.
"""

from __future__ import annotations

import random
import runpy
import sys
from pathlib import Path
from typing import Any

import torch
import torch.utils.cpp_extension
from torch.overrides import TorchFunctionMode

CPU = torch.device("cpu")


def _off_the_gpu(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return CPU
    return CPU if isinstance(value, str) and value.startswith("cuda") else value


class CudaMeansCpu(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return _off_the_gpu(func(*args, **(kwargs or {})))
        args = tuple(_off_the_gpu(value) for value in args)
        return func(*args, **{key: _off_the_gpu(value) for key, value in (kwargs or {}).items()})


class IdleEvent:
    def __init__(self, **options: Any) -> None:
        pass

    def record(self, stream: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: Any) -> float:
        return 0.0


def replace_gpu_functions() -> None:
    torch.cuda.Event = IdleEvent  # type: ignore[assignment, misc]
    torch.cuda.current_stream = lambda device=None: None  # type: ignore[assignment]
    torch.cuda.reset_peak_memory_stats = lambda device=None: None
    torch.cuda.max_memory_allocated = lambda device=None: 0
    torch.cuda.max_memory_reserved = lambda device=None: 0
    torch.cuda.synchronize = lambda device=None: None
    torch.Tensor.pin_memory = lambda self, device=None: self
    torch.nn.Module.cuda = lambda self, device=None: self
    torch.Tensor.cuda = lambda self, device=None: self


if __name__ == "__main__":
    del sys.argv[0]
    sys.path[0] = str(Path(sys.argv[0]).resolve().parent)
    replace_gpu_functions()
    torch.utils.cpp_extension.load = lambda *args, **options: None  # rosinality compiles CUDA code that no CPU calls
    random.seed(0)
    torch.manual_seed(0)
    with CudaMeansCpu():
        runpy.run_path(sys.argv[0], run_name="__main__")
