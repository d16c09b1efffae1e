"""Runs the kernels of a compiled library in many ways; exit status 1 and the first problem if one is wrong.

    python -m tests.ops.emulation.check LIBRARY

A process of its own: broken kernels may crash it, and an address sanitizer must be loaded before Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from tests.ops.emulation.cases import assert_matches_truth, results_of
from tests.ops.emulation.harness import Emulator, StepError, make_gradient, make_inputs

SCHEDULES = (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2))
# Planes for lanes of a warp and for several warps, neither of which fill a block; more codes than eight; columns and
# rows that fill no tile; more rectangles than are contracted at a time; on one multiprocessor, more rows a warp than
# sums over columns that are handed on together.
CASES = (
    ((1, 21, 9, 13, 9, 5), torch.float32, False, 4),
    ((1, 150, 12, 13, 3, 2), torch.float16, True, 4),
    ((2, 40, 64, 66, 2, 3), torch.float16, False, 4),
    ((1, 80, 28, 28, 2, 1), torch.float32, False, 1),
)


def find_problem(library: Path) -> str | None:
    for shape, dtype, channels_last, multiprocessors in CASES:
        inputs = make_inputs(*shape, dtype, channels_last, gain=True)
        grad = make_gradient(inputs)
        first: dict[str, torch.Tensor] = {}
        for schedule, seed in SCHEDULES:
            emulator = Emulator(library, multiprocessors, schedule, seed)
            try:
                state = emulator.backward(emulator.forward(inputs), grad)
                assert_matches_truth(inputs, state, grad)
            except (StepError, AssertionError) as problem:
                return f"schedule {schedule}: {problem}"
            results = results_of(state)
            first = first or results
            different = [name for name, result in results.items() if not torch.equal(result, first[name])]
            if different:
                return f"schedule {schedule}: other results than before in {', '.join(different)}"
    return None


if __name__ == "__main__":
    problem = find_problem(Path(sys.argv[1]))
    sys.exit(problem)
