"""Runs the float32 kernels of a compiled library in many ways; exit status 1 and the first problem if one is wrong.

    python -m tests.ops.emulation.check LIBRARY

A process of its own: broken kernels may crash it, and an address sanitizer must be loaded before Python.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from sc_layers.ops.cuda_plan import Device
from tests.ops.emulation.cases import assert_matches_truth, run_both
from tests.ops.emulation.harness import SPLIT, TINY, EmulationError, Emulator, make_inputs

SCHEDULES = (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2))


def few_blocks(device: Device) -> Device:
    """The device with so small a limit of a grid that blocks have to take several pieces of the work."""
    limited = Device.from_buffer_copy(device)
    limited.max_grid = 9
    return limited


def find_problem(library: Path) -> str | None:
    emulator = Emulator(library)
    for device in (few_blocks(SPLIT), few_blocks(TINY)):
        for shape, channels_last in (((2, 12, 45, 37, 7, 2), False), ((2, 12, 20, 48, 2, 3), True)):
            inputs = make_inputs(*shape, torch.float32, channels_last, gain=True)
            first: dict[str, torch.Tensor] = {}
            for schedule, seed in SCHEDULES:
                try:
                    forward, backward, grad = run_both(emulator, inputs, device, schedule=schedule, seed=seed)
                    assert_matches_truth(inputs, forward, backward, grad)
                except (EmulationError, AssertionError) as problem:
                    return f"schedule {schedule}: {problem}"
                results = {**forward.results, **backward.results}
                first = first or results
                different = [name for name, result in results.items() if not torch.equal(result, first[name])]
                if different:
                    return f"schedule {schedule}: other results than before in {', '.join(different)}"
    return None


if __name__ == "__main__":
    problem = find_problem(Path(sys.argv[1]))
    sys.exit(problem)
