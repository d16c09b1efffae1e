"""Time and memory of the layer (Eq. 1-7, from features and codes) against the same layer written in PyTorch.

For every shape, in one process and in turn: the layer, the eager composition (gate projection, masks, then
`x <- x (1 - a_k) + styled_k a_k` code by code), `torch.compile` of that composition, and a plain copy of x. Every
ratio is the median of the ratios of runs that lie next to each other, so that a busy machine disturbs both.

On the CPU, large fresh tensors cost page faults that hide the kernels. So the script runs itself twice: with the
allocator as it is, and with glibc's thresholds raised so that freed memory is used again. On CUDA, events take the
times; a second table has every kernel beside the time in which a copy moves the bytes that it must move, and a third
what a small call costs the host and in a CUDA graph.

    python benchmarks/bench_layer.py [--json FILE] [--seconds S] [--device cuda]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from torch import Tensor

from sc_layers import SpatialConstriction
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
CUDA_SHAPES = [(64, 256, 128, 5, 4), (64, 256, 64, 5, 4), (64, 512, 32, 5, 4), (8, 512, 32, 16, 4), (8, 512, 8, 5, 4)]
CUDA_LIMIT = 75  # seconds after which no shape is begun on CUDA, where one takes about ten and all may take 90
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
RAISED = {"MALLOC_MMAP_THRESHOLD_": str(1 << 32), "MALLOC_TRIM_THRESHOLD_": str(1 << 34)}
ALLOCATORS: dict[str, dict[str, str]] = {"default": {}, "raised": RAISED}

Function = Callable[..., Tensor]
Case = tuple[tuple[int, ...], torch.dtype, str]  # shape, dtype and layout of a row


def composition(
    x: Tensor, codes: Tensor, gate_weight_h: Tensor, gate_weight_w: Tensor, style_weight: Tensor, style_bias: Tensor
) -> Tensor:
    """The layer as it is usually written: every code in turn."""
    features = x.float()
    mean = features.mean((2, 3))
    gates = []
    for weight in (gate_weight_h, gate_weight_w):
        logits = torch.einsum("nc,kjpsc->nkjps", mean, weight) / math.sqrt(x.shape[1])
        steps = logits.softmax(-1).cumsum(-1)
        gates.append(steps[:, :, :, 0] * (1 - steps[:, :, :, 1]))
    masks = (gates[0][..., :, None] * gates[1][..., None, :]).mean(2)
    styles = codes[:, :, None, None] * style_weight + style_bias
    x_hat = features - mean[:, :, None, None]
    x_hat = x_hat * torch.rsqrt(x_hat.square().mean((2, 3), keepdim=True) + 1e-8)
    for k in range(masks.shape[1]):
        mask = masks[:, k, None]
        styled = x_hat * (1 + styles[:, k, 0, :, None, None]) + styles[:, k, 1, :, None, None]
        features = features * (1 - mask) + styled * mask
    return features.to(x.dtype)


def make_inputs(
    shape: tuple[int, ...], dtype: torch.dtype = torch.float32, device: str = "cpu", layout: str = "NCHW"
) -> tuple[SpatialConstriction, list[Tensor]]:
    """The layer, and what the composition takes: features, codes, the layer's parameters."""
    n, c, size, k, j = shape
    torch.manual_seed(0)
    layer = SpatialConstriction(c, size, k, j).to(device)
    x = torch.randn(n, c, size, size).to(device, dtype, memory_format=LAYOUTS[layout]).requires_grad_()
    codes = torch.randn(n, k, device=device).requires_grad_()
    return layer, [x, codes, layer.gate_weight_h, layer.gate_weight_w, layer.style_weight, layer.style_bias]


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
    shape: tuple[int, ...],
    seconds: float,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    layout: str = "NCHW",
) -> dict[str, Any]:
    torch._dynamo.reset()
    layer, inputs = make_inputs(shape, dtype, device, layout)

    def ours(x: Tensor, codes: Tensor, *_: Tensor) -> Tensor:
        return layer(x, codes)

    ways: dict[str, Function] = {
        "layer": ours,
        "eager": composition,
        "compile": torch.compile(composition, dynamic=False),
    }
    x = inputs[0].detach()
    grad = (
        torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x).contiguous(memory_format=LAYOUTS[layout])
    )
    target = torch.empty_like(x)
    x_bytes = x.untyped_storage().nbytes()
    runs = {name: passes(function, inputs, grad) for name, function in ways.items()}
    row: dict[str, Any] = {
        "shape": shape,
        "layout": layout,
        "dtype": str(dtype).removeprefix("torch."),
        "x_bytes": x_bytes,
    }
    for which in ("forward", "forward+backward"):
        contestants: dict[str, Callable[[], object]] = {name: run[which] for name, run in runs.items()}
        contestants["copy"] = lambda: target.copy_(x)
        times = timed_rounds(contestants, seconds, device)
        row[which] = {f"{name}_ms": statistics.median(t) * 1e3 for name, t in times.items()}
        for other in ("eager", "compile"):
            ratios = (b / a for a, b in zip(times["layer"], times[other], strict=True))
            row[which][f"{other}/layer"] = statistics.median(ratios)
        row[which]["layer/copy"] = statistics.median(a / b for a, b in zip(times["layer"], times["copy"], strict=True))
        row[which]["rounds"] = len(times["layer"])
    row["peak/x"] = {name: peak_memory(run["forward+backward"], device) / x_bytes for name, run in runs.items()}
    row["kept/x"] = {name: kept_for_backward(function, inputs) / x_bytes for name, function in ways.items()}
    return row


# Features that a kernel must move, as multiples of x, by the start of its name.
FEATURES = {"contiguous_statistics": 1, "channels_last_statistics": 1, "stream": 2, "sums": 2}
OURS = (
    *FEATURES,
    *("join_pieces", "styles", "gates", "blend_weights", "style_pieces", "finish_channels", "mask_gradients"),
    *("contract_masks", "logit_gradients", "find_norms", "style_gradients"),
)


def moved_by(kernel: str) -> int:
    """Features that a kernel of ours moves, as multiples of x; `stream` reads the gradient, too, on the way back."""
    name, _, arguments = kernel.partition("<")
    flags = re.findall(r"\b(?:true|false)\b", arguments)
    return FEATURES.get(name, 0) + (name == "stream" and flags[1] == "true")


def kernel_table(shape: tuple[int, ...], dtype: torch.dtype, layout: str) -> list[tuple[str, float, float | None]]:
    """Microseconds of every kernel of ours in a forward and a backward pass, and the share of a copy's speed it has."""
    layer, inputs = make_inputs(shape, dtype, "cuda", layout)
    x, codes = inputs[:2]
    grad, target = torch.randn_like(x), torch.empty_like(x)

    def step() -> None:
        torch.autograd.grad(layer(x, codes), inputs, grad)
        target.copy_(x.detach())

    step()
    rounds = 5
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(rounds):
            step()
        torch.cuda.synchronize()
    times: dict[str, list[float]] = {}
    for event in profile.events() or []:
        if event.device_type != torch.autograd.DeviceType.CUDA:
            continue
        name = re.sub(r"^void |sc_layers::|\(anonymous namespace\)::|<unnamed>::|\(.*", "", event.name)
        times.setdefault(name, []).append(event.time_range.elapsed_us())
    copies = [v for name, v in times.items() if "Memcpy DtoD" in name]
    copy = statistics.median(max(copies, key=statistics.median))
    table: list[tuple[str, float, float | None]] = [("copy of x", copy, 1.0)]
    for name, values in times.items():
        us, kind = statistics.median(values), name.split("<")[0]
        if kind in OURS:
            moved = moved_by(name)
            table.append((name, us, copy * moved / 2 / us if moved else None))
    return table


def small_call(shape: tuple[int, ...]) -> dict[str, float]:
    """Microseconds of a small layer: of the host for one call, and of the card when a CUDA graph replays it."""
    layer, inputs = make_inputs(shape, torch.float32, "cuda")
    x, codes = inputs[:2]
    grad = torch.randn_like(x)
    runs: dict[str, Callable[[], object]] = {
        "forward": lambda: layer(x, codes),
        "forward+backward": lambda: torch.autograd.grad(layer(x, codes), inputs, grad),
    }
    result = {}
    for name, run in runs.items():
        host = []
        for _ in range(200):
            start = time.perf_counter()
            run()
            host.append(time.perf_counter() - start)
            torch.cuda.synchronize()
        result[f"{name}, host"] = statistics.median(host) * 1e6
    with torch.no_grad():
        layer(x, codes)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            layer(x, codes)
    replays = [device_seconds_of(graph.replay) for _ in range(100)]
    result["forward, CUDA graph"] = statistics.median(replays) * 1e6
    return result


def geometric_mean(values: list[float]) -> float:
    return math.exp(statistics.fmean(math.log(value) for value in values))


def print_heading(title: str) -> None:
    print(f"\n{title}")
    print(f"{'':36}{'forward':^38}{'forward+backward':^38}{'peak / x':^14}{'kept / x':^14}")
    times = f"{'layer ms':>10}{'eager':>9}{'compile':>9}{'copy':>10}"
    print(f"{'N, C, H=W, K, J':36}{times}{times}{'layer':>8}{'eager':>6}{'layer':>8}{'eager':>6}", flush=True)


def print_row(row: dict[str, Any]) -> None:
    line = f"{', '.join(map(str, row['shape'])) + ' ' + row['dtype'] + ' ' + row['layout']:36}"
    for which in ("forward", "forward+backward"):
        r = row[which]
        line += f"{r['layer_ms']:10.3f}{r['eager/layer']:8.1f}x{r['compile/layer']:8.1f}x{r['layer/copy']:9.2f}x"
    peak, kept = row["peak/x"], row["kept/x"]
    print(line + f"{peak['layer']:8.2f}{peak['eager']:6.1f}{kept['layer']:8.3f}{kept['eager']:6.1f}", flush=True)


def print_means(rows: list[dict[str, Any]]) -> None:
    for which in ("forward", "forward+backward"):
        eager, compiled = (geometric_mean([row[which][f"{o}/layer"] for row in rows]) for o in ("eager", "compile"))
        least = min(row[which]["compile/layer"] for row in rows)
        print(f"{which}: {eager:.1f}x eager, {compiled:.1f}x torch.compile in the geometric mean; least {least:.2f}x")


def begun_in_time(cases: Sequence[Case], deadline: float) -> Iterator[Case]:
    """The cases one by one until the monotonic clock has reached the deadline; those left are named."""
    for i, case in enumerate(cases):
        if time.monotonic() >= deadline:
            print("no time left for", *cases[i:], flush=True)
            return
        yield case


def measure_cuda(seconds: float) -> dict[str, Any]:
    """All shapes on the current CUDA device, in this process, but for those that there is no time for."""
    deadline = time.monotonic() + CUDA_LIMIT
    if not loading.load("cuda"):
        sys.exit(f"the fused kernels cannot be had on CUDA: {loading.failure('cuda')}")
    name = torch.cuda.get_device_name()
    kernels = {}
    for dtype, layout in ((d, layout) for d in (torch.float16, torch.bfloat16, torch.float32) for layout in LAYOUTS):
        torch.cuda.empty_cache()
        title = f"{CUDA_SHAPES[0]} {str(dtype).removeprefix('torch.')} {layout}"
        kernels[title] = kernel_table(CUDA_SHAPES[0], dtype, layout)
        print(f"\n{title}: us, share of a copy's speed")
        for kernel, us, share in kernels[title]:
            print(f"  {kernel[:70]:72}{us:9.1f}" + (f"{share:7.0%}" if share else ""))
    small = small_call(CUDA_SHAPES[-1])
    print(f"\n{CUDA_SHAPES[-1]} float32, us: " + ", ".join(f"{what} {us:.0f}" for what, us in small.items()))
    # Compiling the plain layer takes longest, so what is known is printed before.
    print_heading(name)
    rows = []
    cases: list[Case] = [(CUDA_SHAPES[0], torch.float16, layout) for layout in LAYOUTS]
    cases += [
        (CUDA_SHAPES[-1], torch.float32, "NCHW"),
        *((shape, torch.float16, "NCHW") for shape in CUDA_SHAPES[1:-1]),
    ]
    for shape, dtype, layout in begun_in_time(cases, deadline):
        rows.append(measure(shape, seconds, "cuda", dtype, layout))
        print_row(rows[-1])
        torch.cuda.empty_cache()
    if rows:
        print_means(rows)
    return {name: rows, "kernels": kernels, "small": small}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write all numbers to this file")
    parser.add_argument("--seconds", type=float, help="time for each shape and pass; 6 on the CPU, 0.3 on CUDA")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", type=int, nargs="*", help="indices of the shapes to run; all by default")
    parser.add_argument("--allocators", nargs="*", choices=list(ALLOCATORS), default=list(ALLOCATORS))
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device that this PyTorch can use")
    seconds = args.seconds or (6.0 if args.device == "cpu" else 0.3)
    shapes = SHAPES if args.shapes is None else [SHAPES[i] for i in args.shapes]
    if args.worker:
        torch.set_num_threads(args.threads)
        args.worker.write_text(json.dumps([measure(shape, seconds) for shape in shapes]))
        return
    results = measure_cuda(seconds) if args.device == "cuda" else {}
    for allocator in args.allocators if args.device == "cpu" else ():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            command = [sys.executable, __file__, *sys.argv[1:], "--worker", str(file)]
            subprocess.run(command, env={**os.environ, **ALLOCATORS[allocator]}, check=True)
            results[allocator] = json.loads(file.read_text())
        print_heading(f"allocator: {allocator}")
        for row in results[allocator]:
            print_row(row)
        print_means(results[allocator])
    if args.json:
        args.json.write_text(json.dumps({"torch": torch.__version__, "threads": args.threads, **results}, indent=1))


if __name__ == "__main__":
    main()
