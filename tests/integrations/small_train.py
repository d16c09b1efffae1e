"""Run NVlabs' train.py on the CPU with narrow networks and short ticks: `python small_train.py [ARGUMENT...]`.

In the directory of the code base. Everything else is as the command line says: options, phases, augmentation, half
precision, snapshots.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tests.integrations.nvlabs_checks import four_images
from tests.integrations.on_cpu import CudaMeansCpu, replace_gpu_functions

BATCHES_PER_TICK = 8
NUM_BATCHES = 17  # the lazy regularisation of D has its second turn after 16


def make_small(loop: Any) -> None:
    """Change the code base's `training_loop` so that networks, ticks and the whole training are small."""
    original = loop.training_loop

    def training_loop(**arguments: Any) -> None:
        for networks in (arguments["G_kwargs"], arguments["D_kwargs"]):
            networks.get("synthesis_kwargs", networks).update(channel_base=512, channel_max=16)
        kimg = arguments["batch_size"] / 1000
        arguments.update(kimg_per_tick=kimg * BATCHES_PER_TICK, total_kimg=kimg * NUM_BATCHES)
        original(**arguments)

    loop.training_loop = training_loop
    loop.setup_snapshot_image_grid = four_images


if __name__ == "__main__":
    sys.path.insert(0, "")
    replace_gpu_functions()
    make_small(importlib.import_module("training.training_loop"))
    with CudaMeansCpu():
        importlib.import_module("train").main()
