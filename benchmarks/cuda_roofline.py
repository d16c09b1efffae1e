"""What the CUDA kernels should cost on a card, predicted from how they cut the work; no GPU is needed.

For every card and pass: the bytes of the features that must move, those that do, everything else that blocks read and
write, the limits by memory and by instructions, the time by the model in cuda_ops/README.md, and the part of the card's
peak bandwidth that the necessary bytes get in that time. Beside it, the bytes that the same layer moves when it is
written in PyTorch, code by code.

    python benchmarks/cuda_roofline.py [--shape N C H W K J] [--dtype float16] [--channels-last]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from sc_layers.ops.cuda_plan import DEVICES, Prediction, predict, shape_of

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def eager_bytes(n: int, c: int, h: int, w: int, k: int, element: int, *, backward: bool) -> int:
    """Least bytes of features that the composition in PyTorch moves, if every operation reads and writes once.

    Forward: mean, centring, square, mean, rescaling; and for each code scale, bias, (1 - a) x, a styled, their sum.
    Backward: one operation on as many tensors again for each, with the sums over pixels and channels.
    """
    features = n * c * h * w * element
    statistics = 1 + 2 + 2 + 1 + 2
    code = 2 + 2 + 2 + 2 + 3
    forward = features * (statistics + k * code)
    return 2 * forward + features * k * 4 if backward else forward


def kind_of(prediction: Prediction) -> str:
    plan = prediction.plan
    if not plan.on_chip:
        return "read twice"
    return f"cluster of {plan.cluster}" if plan.cluster > 1 else "one block"


def row(card: str, name: str, prediction: Prediction, eager: int) -> str:
    plan, cost = prediction
    necessary = cost.ideal_seconds * DEVICES[card].bandwidth
    times = (cost.ideal_seconds, cost.memory_seconds, cost.instruction_seconds, cost.last_wave_seconds, cost.seconds)
    return (
        f"{card:9} {name:9}{kind_of(prediction):>13}{plan.batch:5}{plan.slice:7}{plan.resident:4}"
        f"{plan.shared.bytes / 1024:7.1f}{cost.launches:5}"
        f"{cost.feature_bytes / necessary:8.2f}{(cost.feature_bytes + cost.other_bytes) / necessary:8.2f}"
        f"{eager / necessary:7.1f}"
        + "".join(f"{seconds * 1e6:9.1f}" for seconds in times)
        + f"{cost.ideal_seconds / cost.seconds:7.0%}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("N", "C", "H", "W", "K", "J")
    parser.add_argument("--shape", type=int, nargs=6, metavar=names, default=[64, 256, 128, 128, 5, 4])
    parser.add_argument("--dtype", choices=list(DTYPES), default="float16")
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    if min(args.shape) < 1:
        parser.error(f"all six sizes must be positive, got {args.shape}")
    n, c, h, w, k, j = args.shape
    dtype = DTYPES[args.dtype]
    layout = "channels_last" if args.channels_last else "contiguous"
    print(f"x [{n}, {c}, {h}, {w}] {args.dtype} {layout}, K={k}, J={j}; bytes as multiples of the necessary ones")
    print(
        f"{'':19}{'plane in':>13}{'rows':>5}{'slice':>7}{'res':>4}{'KiB':>7}{'runs':>5}{'x moved':>8}{'all':>8}"
        f"{'eager':>7}{'ideal us':>9}{'memory':>9}{'instr':>9}{'last':>9}{'total':>9}{'peak':>7}"
    )
    for card, device in DEVICES.items():
        for name, backward in (("forward", False), ("backward", True)):
            shape = shape_of(n, c, h, w, k, j, dtype, args.channels_last)
            eager = eager_bytes(n, c, h, w, k, dtype.itemsize, backward=backward)
            try:
                print(row(card, name, predict(shape, device, backward=backward), eager))
            except ValueError as error:
                print(f"{card:9} {name:9} {error}")


if __name__ == "__main__":
    main()
