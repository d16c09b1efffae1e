"""`sc-layers train`."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._optional import require
from ._common import BATCH, RESOLUTION, SEED, Finite, device_option, pick_device
from .dataset import background_option, workers_option
from .metrics import distance_options, with_options

if TYPE_CHECKING:
    from torch import nn

    from ..data import Dataset
    from ..metrics.traversal_hook import TraversalLengthHook
    from ..training import TrainingConfig, TrainingState

PRESETS = ("celeba", "ffhq", "shapes3d", "dsprites", "demo")


@click.command()
@click.option(
    "--data",
    required=True,
    help="Learn 'shapes3d', 'dsprites', 'clevr', a folder or zip of pictures, TFRecords, .npz, .h5, LMDB, MNIST files.",
)
@click.option(
    "--resolution",
    type=RESOLUTION,
    help="Images get this height and width in pixels.  [default: that of the data or the preset]",
)
@click.option(
    "--preset", type=click.Choice(PRESETS), default="celeba", help="Networks and settings are those of this preset."
)
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs"),
    help="The run gets a folder of its own in this one.",
)
@click.option("--kimg", "total_kimg", type=Finite(), help="Train for so many thousands of images.")
@click.option("--batch", type=BATCH, help="An update sees so many images.")
@click.option("--batch-per-pass", type=BATCH, help="So many images go through the networks at a time.")
@click.option("--seed", type=SEED, default=0, help="Fixes the networks, the codes and the order of the data.")
@click.option("--snap", "snapshot_kimg", type=Finite(), help="So many thousands of images lie between snapshots.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="Go on from a network file, or from the newest snapshot of a run's folder.",
)
@click.option(
    "--module-list", help="The generator has these modules, such as '[Const-512, ResConv-up-1, C_spgroup-4-5]'."
)
@click.option(
    "--model", type=click.Choice(["ps_sc", "info_gan", "gan"]), help="The codes are learned by this model's loss."
)
@click.option("--latents", type=click.Choice(["uniform", "normal"]), help="Codes are drawn from this distribution.")
@click.option("--gamma", "r1_gamma", type=Finite(), help="The R1 penalty has this weight.")
@click.option("--code-weight", type=Finite(), help="The loss on the codes has this weight, the paper's lambda.")
@click.option(
    "--perturbation", type=Finite(), help="The perceptual simplicity loss perturbs a code by this, the paper's eps."
)
@click.option("--lr", "learning_rate", type=Finite(), help="All networks learn at this rate.")
@click.option("--mirror/--no-mirror", default=None, help="Flip half of the real images.")
@click.option("--crop", type=click.Choice(["celeba"]), help="Crop aligned CelebA images to 128x128 faces.")
@background_option
@workers_option
@click.option("--skip-bad", is_flag=True, help="Train without damaged pictures, and count them.")
@click.option("--tpl", "tpl_preset", help="Measure TPL after each snapshot with this preset, such as 'tpl_small_0.3'.")
@with_options(distance_options)
@click.option("--tensorboard", is_flag=True, help="Write what --tpl measures for TensorBoard as well.")
@click.option("--dry-run", is_flag=True, help="Print the settings and the size of the networks, and stop.")
@device_option
def train(
    data: str,
    resolution: int | None,
    preset: str,
    outdir: Path,
    resume: Path | None,
    module_list: str | None,
    crop: str | None,
    background: str,
    workers: int | None,
    skip_bad: bool,
    tpl_preset: str | None,
    distance: str,
    weights: Path | None,
    tensorboard: bool,
    dry_run: bool,
    device: str,
    **settings: Any,
) -> None:
    """Train a PS-SC GAN, or the paper's baselines.

    Every option without a default takes its value from the preset.
    """
    from ..data import open_dataset
    from ..training import create_run_dir, training_preset
    from ..training import train as run

    if tensorboard and tpl_preset is None:
        raise click.UsageError("--tensorboard needs --tpl: it shows what that measures")
    if resume is not None and module_list is not None:
        raise click.UsageError("--module-list and --resume exclude each other: the networks come from the file")
    tpl = None if tpl_preset is None else _tpl_hook(tpl_preset, distance, weights)
    config = _override(training_preset(preset), settings)
    dataset = open_dataset(data, resolution, crop, background, skip_bad)
    _check_data(dataset, skip_bad)
    if resume is None:
        state = _new_training(config, preset, module_list, dataset, pick_device(device))
    else:
        state = _resumed_training(resume, config, dataset, pick_device(device))
    meta = {"data": data, "resolution": dataset.resolution, "preset": preset, "crop": crop, "background": background}
    _describe(state, dataset)
    if dry_run:
        click.echo(json.dumps(config.to_dict(), indent=2))
        return
    run_dir = create_run_dir(outdir, f"{Path(data).stem}{dataset.resolution}-{preset}-{config.model}")
    click.echo(f"writing to {run_dir}")
    if tpl is not None and tensorboard:
        require("tensorboard", "train")
        tpl.writer = importlib.import_module("torch.utils.tensorboard").SummaryWriter(run_dir)
    hooks = [tpl.after_snapshot] if tpl is not None else []
    path = run(state, dataset, run_dir, meta, hooks, workers=workers, skip_bad=skip_bad)
    click.echo(f"finished: {path}")


def _tpl_hook(preset: str, distance: str, weights: Path | None) -> TraversalLengthHook:
    from ..metrics import make_distance
    from ..metrics.traversal_hook import TraversalLengthHook

    return TraversalLengthHook(settings=preset, distance=make_distance(distance, weights))


def _check_data(dataset: Dataset, skip_bad: bool, count: int = 64) -> None:
    """Refuse sizes that no network has; decode images spread over the data set, so that damage may show at once."""
    from ..data.formats.image_files import conversion_command

    side = dataset.resolution
    if side & (side - 1) or side < 4:
        raise click.UsageError(
            f"{dataset.name} has images of {side}x{side} pixels, networks need a power of two: "
            f"make them so with {conversion_command(dataset.name, side)}"
        )
    if not skip_bad:
        for index in sorted({i * (len(dataset) - 1) // (count - 1) for i in range(count)}):
            dataset.picture(index)


def _override(config: TrainingConfig, settings: dict[str, Any]) -> TrainingConfig:
    given = {name: value for name, value in settings.items() if value is not None}
    if "batch" in given and "batch_per_pass" not in given and given["batch"] % config.batch_per_pass:
        given["batch_per_pass"] = given["batch"]
    return config.replace(**given)


def _new_training(
    config: TrainingConfig, preset: str, module_list: str | None, dataset: Dataset, device: Any
) -> TrainingState:
    import torch

    from ..models import Discriminator, Generator, Recognizer, network_preset, parse_module_list
    from ..training import TrainingState

    torch.manual_seed(config.seed)
    networks = network_preset(preset, dataset.resolution, dataset.num_channels)
    generator, recognizer = networks.generator, networks.recognizer
    if module_list is not None:
        generator = dataclasses.replace(generator, module_list=parse_module_list(module_list))
        recognizer = dataclasses.replace(recognizer, num_codes=generator.num_codes)
    return TrainingState.create(
        config,
        Generator(generator).to(device),
        Discriminator(networks.discriminator).to(device),
        Recognizer(recognizer).to(device) if config.model != "gan" else None,
    )


def _resumed_training(path: Path, config: TrainingConfig, dataset: Dataset, device: Any) -> TrainingState:
    import torch

    from ..checkpoints.snapshots import find_snapshot
    from ..training import resume_training

    torch.manual_seed(config.seed)
    path = find_snapshot(path)
    state, messages = resume_training(path, config, device)
    expected = (state.G.img_channels, state.G.img_resolution)
    if expected != (dataset.num_channels, dataset.resolution):
        raise click.UsageError(
            f"{path} makes images with {expected[0]} channels and {expected[1]} pixels, "
            f"the data has {dataset.num_channels} and {dataset.resolution}"
        )
    click.echo(f"resuming from {path} at {state.images_seen / 1000:g} kimg")
    for message in messages:
        click.echo(f"note: {message}")
    return state


def _describe(state: TrainingState, dataset: Dataset) -> None:
    def size(network: nn.Module | None) -> str:
        return f"{sum(p.numel() for p in network.parameters()):,}" if network is not None else "none"

    click.echo(f"data: {dataset}")
    for note in dataset.notes:
        click.echo(f"note: {note}")
    if dataset.label_file is not None:
        click.echo(f"note: {dataset.label_file} is not read: training uses no labels")
    click.echo(f"parameters: G {size(state.G)}, D {size(state.D)}, Q {size(state.Q)}; {state.G.num_codes} codes")
