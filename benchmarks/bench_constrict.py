"""Time and memory of the fused operator against the same layer written in PyTorch.

For every shape, in one process and in turn: the fused operator, the eager composition (gates, masks, then
`x <- x (1 - a_k) + styled_k a_k` code by code), `torch.compile` of that composition, and a plain copy of x. Every
ratio is the median of the ratios of runs that lie next to each other, so that a busy machine disturbs both.

On the CPU, large fresh tensors cost page faults that hide the kernels. So the script runs itself twice: with the
allocator as it is, and with glibc's thresholds raised so that freed memory is used again. On CUDA, events take the
times.

    python benchmarks/bench_constrict.py [--json FILE] [--seconds S] [--device cuda [--dtype float16]]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from sc_layers import functional as F
from sc_layers.ops import loading

SHAPES = [  # N, C, H = W, K, J
    (8, 512, 8, 5, 4),
    (8, 512, 16, 5, 4),
    (8, 512, 32, 5, 4),
    (8, 256, 64, 5, 4),
    (8, 128, 128, 5, 4),
    (2, 64, 256, 5, 4),
    (8, 512, 32, 1, 1),
    (8, 512, 32, 16, 4),
]
CUDA_SHAPES = [*SHAPES, (64, 256, 128, 5, 4)]
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
EPS = 1e-8
RAISED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "raised": RAISED}

Function = Callable[..., Tensor]


def composition(x: Tensor, logits_h: Tensor, logits_w: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """The layer as it is usually written: every code in turn."""
    gate_h = logits_h.softmax(-1).cumsum(-1)
    gate_w = logits_w.softmax(-1).cumsum(-1)
    gate_h = gate_h[:, :, :, 0] * (1 - gate_h[:, :, :, 1])
    gate_w = gate_w[:, :, :, 0] * (1 - gate_w[:, :, :, 1])
    masks = (gate_h[..., :, None] * gate_w[..., None, :]).mean(2)
    x_hat = x - x.mean((2, 3), keepdim=True)
    x_hat = x_hat * torch.rsqrt(x_hat.square().mean((2, 3), keepdim=True) + EPS)
    for k in range(masks.shape[1]):
        mask = masks[:, k, None]
        styled = x_hat * scale[:, k, :, None, None] + bias[:, k, :, None, None]
        x = x * (1 - mask) + styled * mask
    return x


def fused(*inputs: Tensor) -> Tensor:
    return F.constrict(*inputs, eps=EPS, impl="fused")


def make_inputs(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    n, c, size, k, j = shape
    generator = torch.Generator().manual_seed(0)
    sizes = [(n, c, size, size), (n, k, j, 2, size), (n, k, j, 2, size), (n, k, c), (n, k, c)]
    tensors = [torch.randn(s, generator=generator) for s in sizes]
    tensors[0] = tensors[0].to(dtype)
    return [tensor.to(device).requires_grad_() for tensor in tensors]


def passes(function: Function, inputs: list[Tensor], grad: Tensor) -> dict[str, Callable[[], object]]:
    """The two things that are timed for each way of computing."""

    def forward() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    def both() -> tuple[Tensor, ...]:
        return torch.autograd.grad(function(*inputs), inputs, grad)

    return {"forward": forward, "forward+backward": both}


def seconds_of(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def device_seconds_of(run: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def timed_rounds(runs: dict[str, Callable[[], object]], seconds: float, device: str = "cpu") -> dict[str, list[float]]:
    """Times of all contestants in turn, round by round, until the time is over; five rounds at least."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    clock = device_seconds_of if device == "cuda" else seconds_of
    for run in runs.values():
        run()
    start = time.perf_counter()
    while len(times[next(iter(runs))]) < 5 or time.perf_counter() - start < seconds:
        for name, run in runs.items():
            times[name].append(clock(run))
    return times


def memory_events(run: Callable[[], object]) -> Iterator[int]:
    """Bytes allocated (positive) and freed (negative) by the CPU allocator, in order."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    yield from (e.nbytes() for e in sorted(events, key=lambda e: e.start_ns()))


def peak_memory(run: Callable[[], object], device: str = "cpu") -> int:
    """Most bytes that `run` had allocated at once, its result included."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return torch.cuda.max_memory_allocated() - before
    total = peak = 0
    for size in memory_events(run):
        total += size
        peak = max(peak, total)
    return peak


def kept_for_backward(function: Function, inputs: list[Tensor]) -> int:
    """Bytes of the storages that the graph of one forward pass holds on to, x itself included."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = function(*inputs)
    del y
    return sum(storages.values())


def measure(
    shape: tuple[int, ...], seconds: float, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    torch._dynamo.reset()
    ways: dict[str, Function] = {
        "fused": fused,
        "eager": composition,
        "compile": torch.compile(composition, dynamic=False),
    }
    inputs = make_inputs(shape, dtype, device)
    grad = torch.randn(inputs[0].shape, generator=torch.Generator().manual_seed(1)).to(inputs[0])
    target = torch.empty_like(inputs[0])
    x_bytes = inputs[0].untyped_storage().nbytes()
    runs = {name: passes(function, inputs, grad) for name, function in ways.items()}
    row: dict[str, Any] = {"shape": shape, "x_bytes": x_bytes}
    for which in ("forward", "forward+backward"):
        contestants: dict[str, Callable[[], object]] = {name: run[which] for name, run in runs.items()}
        contestants["copy"] = lambda: target.copy_(inputs[0].detach())
        times = timed_rounds(contestants, seconds, device)
        ours = times["fused"]
        row[which] = {f"{name}_ms": statistics.median(t) * 1e3 for name, t in times.items()}
        for other in ("eager", "compile"):
            row[which][f"{other}/fused"] = statistics.median(b / a for a, b in zip(ours, times[other], strict=True))
        row[which]["fused/copy"] = statistics.median(a / b for a, b in zip(ours, times["copy"], strict=True))
        row[which]["rounds"] = len(ours)
    row["peak/x"] = {name: peak_memory(run["forward+backward"], device) / x_bytes for name, run in runs.items()}
    row["kept/x"] = {name: kept_for_backward(function, inputs) / x_bytes for name, function in ways.items()}
    half = make_inputs(shape, torch.bfloat16, device)
    row["kept/x"]["fused_half"] = kept_for_backward(fused, half) / half[0].untyped_storage().nbytes()
    return row


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    print(f"\n{title}")
    print(f"{'':22}{'forward':^38}{'forward+backward':^38}{'peak / x':^20}{'kept / x':^20}")
    times = f"{'fused ms':>10}{'eager':>9}{'compile':>9}{'copy':>10}"
    print(f"{'N, C, H=W, K, J':22}{times}{times}{'fused':>8}{'eager':>6}{'comp':>6}{'fused':>8}{'half':>6}{'eager':>6}")
    for row in rows:
        line = f"{', '.join(map(str, row['shape'])):22}"
        for which in ("forward", "forward+backward"):
            r = row[which]
            line += f"{r['fused_ms']:10.2f}{r['eager/fused']:8.1f}x{r['compile/fused']:8.1f}x{r['fused/copy']:9.2f}x"
        peak, kept = row["peak/x"], row["kept/x"]
        line += f"{peak['fused']:8.2f}{peak['eager']:6.1f}{peak['compile']:6.1f}"
        print(line + f"{kept['fused']:8.3f}{kept['fused_half']:6.3f}{kept['eager']:6.1f}")
    for which in ("forward", "forward+backward"):
        eager, compiled = (geometric_mean([row[which][f"{o}/fused"] for row in rows]) for o in ("eager", "compile"))
        least = min(row[which]["compile/fused"] for row in rows)
        print(f"{which}: {eager:.1f}x eager, {compiled:.1f}x torch.compile in the geometric mean; least {least:.2f}x")


def measure_cuda(args: argparse.Namespace) -> dict[str, Any]:
    """All shapes on the current CUDA device, in this process."""
    if not loading.load("cuda"):
        sys.exit(f"the fused kernels cannot be had on CUDA: {loading.failure('cuda')}")
    shapes = CUDA_SHAPES if args.shapes is None else [CUDA_SHAPES[i] for i in args.shapes]
    rows = [measure(shape, args.seconds, "cuda", DTYPES[args.dtype]) for shape in shapes]
    name = f"{torch.cuda.get_device_name()}, {args.dtype}"
    print_table(name, rows)
    return {name: rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--seconds", type=float, default=6.0, help="time for each shape and pass")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", type=int, nargs="*", help="indices of the shapes to run; all by default")
    parser.add_argument("--allocators", nargs="*", choices=list(ALLOCATORS), default=list(ALLOCATORS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=list(DTYPES), default="float32", help="of x, on CUDA")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device that this PyTorch can use")
    if args.device == "cpu" and args.dtype != "float32":
        parser.error("on the CPU only float32 is measured")
    shapes = SHAPES if args.shapes is None else [SHAPES[i] for i in args.shapes]
    if args.worker:
        torch.set_num_threads(args.threads)
        loading.prepare("fused")
        args.worker.write_text(json.dumps([measure(shape, args.seconds) for shape in shapes]))
        return
    results = measure_cuda(args) if args.device == "cuda" else {}
    for allocator in args.allocators if args.device == "cpu" else ():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(file)]
            subprocess.run(command, env={**os.environ, **ALLOCATORS[allocator]}, check=True)
            results[allocator] = json.loads(file.read_text())
        print_table(f"allocator: {allocator}", results[allocator])
    if args.json:
        args.json.write_text(json.dumps({"torch": torch.__version__, "threads": args.threads, **results}, indent=1))


if __name__ == "__main__":
    main()
