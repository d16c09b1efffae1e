"""Training steps of the full presets against a plain eager version of the same networks, paired in one process.

The plain version is what one writes first: every operation on its own, contiguous features, a blur by depthwise
convolution, constriction code by code, PyTorch's Adam, averages parameter by parameter, a question to the device after
every gradient. Both train the same networks from the same start on the same images, in turn, and each ratio is the
median over neighbouring runs, so that a busy machine disturbs both. A step counts its share of R1.

    python benchmarks/bench_training.py [--preset demo] [--resolution 64] [--channels 64] [--batch 16]
    python benchmarks/bench_training.py --device cuda [--json FILE]

On CUDA, without `--preset`, it measures the CelebA preset at 128 pixels and the demo's at 64, in under a minute:
images/s, kernels a step, the share of time in which the GPU is busy, layout conversions, peak memory; with CUDA graphs
and without ("eager").
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from sc_layers import SpatialConstriction
from sc_layers.losses import PerceptualSimplicityLoss, discriminator_loss, generator_loss, r1_penalty
from sc_layers.models import PRESET_NAMES, Discriminator, Generator, NetworkPreset, Recognizer, network_preset
from sc_layers.models.latents import draw_codes
from sc_layers.models.modules import ConvLayer, ConvModule, NoiseConv
from sc_layers.training import TrainingConfig, TrainingState, training_preset
from sc_layers.training.precision import PRECISIONS
from sc_layers.training.step import training_step

sys.path.insert(0, str(Path(__file__).parent))

from bench_layer import composition

R1_INTERVAL = 16
# Of a step's kernels, those that only change the layout of a tensor, by parts of their names.
CONVERSIONS = ("nchwToNhwc", "nhwcToNchw")
CUDA_RUNS = [("celeba", 128, 16), ("demo", 64, 16), ("demo", 64, 64)]  # preset, resolution, batch
# Settings that the plain version lacks, so ours does without them too.
LEFT_OUT = {"unlock_kimg": 0.0, "overlap_weight": 0.0, "reader_noise": 0.0}

Step = Callable[[bool], object]


class PlainConv(ConvLayer):
    """The convolution of the networks, one operation after the other."""

    def convolve(self, x: Tensor) -> Tensor:
        weight = self.weight / math.sqrt(self.weight[0].numel())
        size = weight.shape[2]
        if self.resample == "id":
            return F.conv2d(x, weight, padding=size // 2)
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=x.device) / 8
        if self.resample == "up":
            x = F.conv_transpose2d(x, weight.flip(2, 3).transpose(0, 1), stride=2)
            return self._blur(x, taps * 2, 1 if size == 3 else 2)
        return F.conv2d(self._blur(x, taps, 2 if size == 3 else 1), weight, stride=2)

    def _blur(self, x: Tensor, taps: Tensor, padding: int) -> Tensor:
        kernel = torch.outer(taps, taps).to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(F.pad(x, (padding,) * 4), kernel, groups=x.shape[1])

    def finish(self, y: Tensor) -> Tensor:
        if self.bias is not None:
            y = y + self.bias.to(y.dtype)[:, None, None]
        if self.activate:
            y = F.leaky_relu(y, 0.2)
        return y * self.gain

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.convolve(x))


class PlainNoise(PlainConv):
    """A convolution with noise."""

    def forward(self, x: Tensor, noise_mode: str = "random") -> Tensor:
        y = self.convolve(x)
        noise = torch.randn(len(y), 1, *y.shape[2:], dtype=y.dtype, device=y.device)
        return self.finish(y + noise * self.noise_strength)


class PlainBlock(ConvModule):
    """A block whose shortcut is resampled first."""

    def _shortcut(self, skip: ConvLayer, x: Tensor) -> Tensor:
        factor = 2 ** len(self.convs)
        if self.resample == "up":
            x = F.interpolate(x, scale_factor=float(factor))
        elif self.resample == "down":
            x = F.avg_pool2d(x, factor)
        y: Tensor = skip(x)
        return y


class PlainConstriction(SpatialConstriction):
    """Spatial constriction, code by code."""

    def forward(self, x: Tensor, codes: Tensor, return_masks: bool = False) -> Tensor:
        return composition(x, codes, self.gate_weight_h, self.gate_weight_w, self.style_weight, self.style_bias)


PLAIN = {
    ConvLayer: PlainConv,
    NoiseConv: PlainNoise,
    ConvModule: PlainBlock,
    SpatialConstriction: PlainConstriction,
}


def plain(network: nn.Module) -> Any:
    """A copy of a network with the plain forward passes, in contiguous memory."""
    network = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    for module in network.modules():
        module.__class__ = PLAIN.get(type(module), type(module))
    return network


class PlainTraining:
    """The training step as one writes it first."""

    def __init__(self, state: TrainingState) -> None:
        self.config = state.config
        self.G, self.D, self.Q, self.G_ema = map(plain, (state.G, state.D, state.Q, state.G_ema))
        adam: dict[str, Any] = {"lr": self.config.learning_rate, "betas": (0.0, self.config.adam_beta2)}
        self.g_optimizer = torch.optim.Adam([*self.G.parameters(), *self.Q.parameters()], **adam)
        self.d_optimizer = torch.optim.Adam(self.D.parameters(), **adam)
        self.ps_loss = PerceptualSimplicityLoss(self.config.code_weight, self.config.perturbation)

    def _update(self, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if all(bool(torch.isfinite(grad).all()) for grad in grads):
            optimizer.step()

    def step(self, reals: Tensor, with_r1: bool) -> None:
        """One update of all networks."""
        config = self.config

        def codes() -> Tensor:
            return draw_codes(config.batch, self.G.num_codes, config.latents, reals.device)

        self.D.requires_grad_(False)
        code_loss, images = self.ps_loss(self.G, self.Q, codes())
        self._update(self.g_optimizer, generator_loss(self.D(images)).mean() + code_loss.mean())
        self.D.requires_grad_(True)
        with torch.no_grad():
            for average, parameter in zip(self.G_ema.parameters(), self.G.parameters(), strict=True):
                average.copy_(parameter.lerp(average, config.ema_beta(0)))
            fakes = self.G(codes())
        self._update(self.d_optimizer, discriminator_loss(self.D(fakes), self.D(reals)).mean())
        if with_r1:
            penalty = r1_penalty(self.D, reals, config.r1_gamma).mean() * config.d_reg_interval
            self._update(self.d_optimizer, penalty)


def wide(preset: NetworkPreset, channels: int | None) -> NetworkPreset:
    """The preset, or its networks with this many channels everywhere."""
    if channels is None:
        return preset
    widths = {"fmap_min": channels, "fmap_max": channels}
    networks = {name: getattr(preset, name) for name in ("generator", "discriminator", "recognizer")}
    return dataclasses.replace(
        preset, **{name: dataclasses.replace(config, **widths) for name, config in networks.items()}
    )


def start(preset: NetworkPreset, config: TrainingConfig, device: torch.device) -> TrainingState:
    """A training of the preset's networks from seed 0."""
    torch.manual_seed(0)
    networks = (Generator(preset.generator), Discriminator(preset.discriminator), Recognizer(preset.recognizer))
    return TrainingState.create(config, *(network.to(device) for network in networks))


def our_step(state: TrainingState, reals: Tensor) -> Step:
    reals = reals.contiguous(memory_format=torch.channels_last)

    def step(with_r1: bool) -> None:
        state.updates = 0 if with_r1 else 1
        training_step(state, reals)

    return step


def plain_step(training: PlainTraining, reals: Tensor) -> Step:
    return lambda with_r1: training.step(reals, with_r1)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(step: Step, with_r1: bool, device: torch.device) -> float:
    synchronise(device)
    begin = time.perf_counter()
    step(with_r1)
    synchronise(device)
    return time.perf_counter() - begin


def mean_seconds(step: Step, device: torch.device) -> float:
    """Seconds of a step with its share of R1."""
    without, with_r1 = (seconds(step, r1, device) for r1 in (False, True))
    return without + (with_r1 - without) / R1_INTERVAL


def kernels(step: Step) -> dict[str, float]:
    """What the GPU does in a step without R1: kernels, those that convert layouts, and its busy seconds."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        step(False)
        torch.cuda.synchronize()
    events = [event for event in recorded.events() if event.device_type == DeviceType.CUDA]
    return {
        "kernels": len(events),
        "conversions": sum(any(part in event.name for part in CONVERSIONS) for event in events),
        "busy_s": sum(event.time_range.elapsed_us() for event in events) / 1e6,
    }


def peak_memory(step: Step, device: torch.device) -> float:
    """GiB at most allocated on the card in a step with R1, both contestants' networks included."""
    torch.cuda.reset_peak_memory_stats(device)
    step(True)
    return torch.cuda.max_memory_allocated(device) / 2**30


def measure(
    preset_name: str,
    resolution: int | None,
    batch: int,
    channels: int | None,
    device: torch.device,
    precisions: list[str],
    limit: float,
) -> list[dict]:
    """One row of numbers for each contestant.

    Args:
        preset_name: one of `PRESET_NAMES`.
        resolution: size of the images in pixels; None takes the preset's.
        batch: images a step, all in one pass.
        channels: None, or the width of all networks.
        device: where to train.
        precisions: of our contestants; the plain one computes as PyTorch does by default.
        limit: seconds that the timed rounds take about; three rounds at least.
    """
    preset = wide(network_preset(preset_name, resolution), channels)
    settings = {"batch": batch, "batch_per_pass": batch, "d_reg_interval": R1_INTERVAL, **LEFT_OUT}
    config = training_preset(preset_name).replace(**settings)
    contestants = {name: config.replace(precision=name) for name in precisions}
    if device.type == "cuda":
        contestants |= {f"{name} eager": config.replace(precision=name, cuda_graphs=False) for name in precisions}
    states = {name: start(preset, settings, device) for name, settings in contestants.items()}
    training = PlainTraining(start(preset, config, device))
    for state in states.values():
        for network in (state.G, state.D, state.Q, state.G_ema):
            network.to(memory_format=torch.channels_last)
    generator = preset.generator
    reals = torch.rand(batch, generator.num_channels, generator.resolution, generator.resolution) * 2 - 1
    steps = {"plain": plain_step(training, reals.to(device))}
    steps |= {name: our_step(state, reals.to(device)) for name, state in states.items()}
    for step in steps.values():
        mean_seconds(step, device)  # warms up
    rounds: list[dict[str, float]] = []
    end = time.perf_counter() + limit
    while len(rounds) < 3 or time.perf_counter() < end:
        rounds.append({name: mean_seconds(step, device) for name, step in steps.items()})
    rows = []
    for name, step in steps.items():
        time_of_step = statistics.median(times[name] for times in rounds)
        row = {
            "preset": preset_name,
            "resolution": generator.resolution,
            "channels": channels,
            "batch": batch,
            "contestant": name,
            "ms": time_of_step * 1e3,
            "images_per_second": batch / time_of_step,
            "speedup": statistics.median(times["plain"] / times[name] for times in rounds),
        }
        if device.type == "cuda":
            row |= kernels(step) | {"peak_GiB": peak_memory(step, device)}
            row["busy_share"] = row.pop("busy_s") / seconds(step, False, device)
        rows.append(row)
    return rows


def print_row(row: dict[str, Any]) -> None:
    width = "" if row["channels"] is None else f" {row['channels']} channels"
    text = f"{row['preset']} {row['resolution']}{width} B={row['batch']:<3d} {row['contestant']:10s}"
    text += f" {row['ms']:9.1f} ms {row['images_per_second']:9.1f} images/s {row['speedup']:6.2f} x plain"
    if "kernels" in row:
        text += f" {row['kernels']:6d} kernels {row['conversions']:5d} conversions"
        text += f" {row['busy_share']:5.0%} busy {row['peak_GiB']:6.2f} GiB"
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESET_NAMES, help="by default demo at 64 pixels, and see above on CUDA")
    parser.add_argument("--resolution", type=int, help="size of the images in pixels, by default the preset's")
    parser.add_argument("--channels", type=int, help="give all networks this width")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, help="by default tf32, on CUDA bf16 too")
    parser.add_argument("--seconds", type=float, default=8, help="of timed rounds for each row of presets")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.preset is not None:
        runs = [(arguments.preset, arguments.resolution, arguments.batch)]
    else:
        runs = CUDA_RUNS if device.type == "cuda" else [("demo", arguments.resolution or 64, arguments.batch)]
    precisions = arguments.precisions or (["tf32", "bf16"] if device.type == "cuda" else ["tf32"])
    rows = []
    for run in runs:
        for row in measure(*run, arguments.channels, device, precisions, arguments.seconds):
            print_row(row)
            rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
