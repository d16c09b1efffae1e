"""How much it saves to compute the features of each image of a sweep once.

The distances of N images need N passes through the network here, and 2 (N - 1) in a loop over pairs, at the same batch
size: at most 2 (N - 1) / N times as long. Both are timed in turn in one process, and the whole TPL beside them:

    python benchmarks/bench_tpl.py --distance efficientnet --size 64

Without internet, `--distance lpips-random` times the paper's network (VGG16) with random weights.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sc_layers.metrics.distances import (
    DISTANCES,
    LPIPS,
    FeatureDistance,
    make_distance,
    neighbour_distances,
    prepare_images,
)
from sc_layers.metrics.generators import Sampling
from sc_layers.metrics.traversal_length import TPLSettings, traversal_perceptual_length


def random_lpips() -> FeatureDistance:
    """LPIPS on a VGG16 that was never trained: the same work, without its weights file."""
    import lpips

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return LPIPS(lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval().requires_grad_(False))


class Waves:
    """Smooth images of two codes, cheap to make."""

    num_codes = 2

    def __init__(self, size: int, device: torch.device) -> None:
        ticks = torch.linspace(-3, 3, size, device=device)
        self.y, self.x = ticks.view(1, 1, -1, 1), ticks.view(1, 1, 1, -1)

    def __call__(self, codes: Tensor) -> Tensor:
        first, second = torch.split(codes.view(len(codes), 2, 1, 1), 1, dim=1)
        wave = torch.sin(self.x + first) * torch.cos(self.y * second)
        return torch.cat([wave, wave.square(), -wave], dim=1)


def sweep_codes(num_points: int, num_sweeps: int) -> Tensor:
    """Codes [num_sweeps, num_points, 2] of sweeps of the first code."""
    codes = torch.randn(num_sweeps, 1, 2, generator=torch.Generator().manual_seed(0)).repeat(1, num_points, 1)
    codes[..., 0] = torch.linspace(-4, 4, num_points)
    return codes


def pairwise(measure: FeatureDistance, images: Tensor, batch_size: int) -> Tensor:
    """The plain loop: both images of each pair go through the network."""
    first, second = (part.flatten(0, 1).split(batch_size) for part in (images[:, :-1], images[:, 1:]))
    parts = [measure(prepare_images(a), prepare_images(b)) for a, b in zip(first, second, strict=True)]
    return torch.cat(parts).view(len(images), -1).double().cpu()


def shared(measure: FeatureDistance, images: Tensor, batch_size: int) -> Tensor:
    """The same distances by the function behind TPL, which gets the ready images as its generator's."""
    flat = images.flatten(0, 1)
    ready = iter(flat.split(batch_size))
    codes = iter(torch.zeros(len(flat), 1).split(batch_size))
    return neighbour_distances(lambda _: next(ready), measure, codes, tuple(images.shape[:2]), images.device)


def timed(function: Callable[[], Tensor], device: torch.device) -> tuple[float, float, Tensor]:
    """Wall and CPU seconds, and the result."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    result = function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - wall, time.process_time() - cpu, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--distance", choices=[*DISTANCES, "lpips-random"], default="efficientnet")
    parser.add_argument("--weights", type=Path, help="file of the distance's weights")
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--points", type=int, default=49, help="N, images a sweep")
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device, name, batch = torch.device(arguments.device), arguments.distance, arguments.batch
    measure = random_lpips() if name == "lpips-random" else make_distance(name, arguments.weights)
    measure = measure.to(device)
    generator = Waves(arguments.size, device)
    codes = sweep_codes(arguments.points, arguments.sweeps).to(device)
    traversals = max(1, arguments.sweeps // 2)
    rows = []
    with torch.inference_mode():
        images = generator(codes.flatten(0, 1)).unflatten(0, codes.shape[:2])
        for _ in range(arguments.rounds + 1):
            slow = timed(lambda: pairwise(measure, images, batch), device)
            fast = timed(lambda: shared(measure, images, batch), device)
            torch.testing.assert_close(fast[2], slow[2], rtol=1e-3, atol=1e-5)
            rows.append((slow, fast))
    whole = timed(
        lambda: (
            traversal_perceptual_length(
                generator,
                settings=TPLSettings(num_points=arguments.points, num_traversals=traversals, threshold=0),
                distance=measure,
                sampling=Sampling(batch_size=batch, device=device),
            ).per_dim
        ),
        device,
    )
    rows = rows[1:]  # the first round warms up
    result = {
        "pairwise_s": statistics.median(slow[0] for slow, _ in rows),
        "shared_s": statistics.median(fast[0] for _, fast in rows),
        "speedup": statistics.median(slow[0] / fast[0] for slow, fast in rows),
        "speedup_cpu_time": statistics.median(slow[1] / fast[1] for slow, fast in rows),
        "limit": 2 * (arguments.points - 1) / arguments.points,
        "whole_tpl_s": whole[0],
    }
    print(f"{name}, {arguments.sweeps} sweeps of {arguments.points} images of {arguments.size} pixels")
    print(f"pair by pair          {result['pairwise_s']:8.3f} s")
    print(f"each image once       {result['shared_s']:8.3f} s")
    print(f"speedup, wall         {result['speedup']:8.2f}    (limit {result['limit']:.2f})")
    print(f"speedup, CPU time     {result['speedup_cpu_time']:8.2f}")
    print(f"whole TPL             {result['whole_tpl_s']:8.3f} s for {2 * traversals} sweeps")
    if arguments.json:
        arguments.json.write_text(json.dumps({**vars(arguments), **result}, default=str, indent=2) + "\n")


if __name__ == "__main__":
    main()
