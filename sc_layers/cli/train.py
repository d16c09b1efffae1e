"""`sc-layers train`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .._optional import require
from ..files import read_file
from ._common import BATCH, RESOLUTION, SEED, Finite, device_option, pick_device
from .dataset import workers_option
from .metrics import Names, distance_options, feature_options, with_options

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..data import Dataset
    from ..metrics.snapshot_metrics import SnapshotMetrics
    from ..metrics.traversal_hook import TraversalLengthHook
    from ..models import NetworkPreset
    from ..models.module_list import ModuleSpec
    from ..training import TrainingConfig, TrainingState
    from ..training.board import Board
    from ..training.loop import SnapshotHook
    from ..training.processes import Processes

PRESETS = ("celeba", "ffhq", "shapes3d", "dsprites", "demo")
_SOURCE = ("data", "resolution", "preset", "crop", "background")
_NETWORKS = ("module_list", "mask", "rects", "codes", "width", "z_dim")
# To what is learned.
_NO_DIFFERENCE = ("total_kimg", "snapshot_kimg", "checkpoint_minutes", "batch_per_pass", "cuda_graphs")

# Options that only some trainings look at, by the options and values that make them do so.
_BELONGS_TO: dict[str, dict[str, tuple[str, ...]]] = {
    "z_dim": {"model": ("ib_gan",)},
    "bottleneck_weight": {"model": ("ib_gan",)},
    "code_weight": {"model": ("ps_sc", "info_gan", "ib_gan")},
    "reader_noise": {"model": ("ps_sc", "info_gan", "ib_gan")},
    "average_recognizer": {"model": ("ps_sc", "info_gan", "ib_gan")},
    "perturbation": {"model": ("ps_sc",), "regularizer": ("vp",)},
    "regularizer_weight": {"regularizer": ("hessian", "orojar", "infogan_cr", "vp")},
    "augment_probability": {"augment": ("ada", "fixed")},
    "augment_target": {"augment": ("ada",)},
    "augment_kimg": {"augment": ("ada",)},
}

_Z_DIM = 16  # of the authors of IB-GAN for dSprites
_GRACE = 2  # seconds for the process that tells why it fails to end first: the launcher ends all when one has ended


@click.command()
@click.option(
    "--data",
    help="Learn 'shapes3d', 'dsprites', 'clevr', a folder or zip of pictures, TFRecords, .npz, .h5, LMDB, MNIST files.",
)
@click.option(
    "--resolution",
    type=RESOLUTION,
    help="Images get this height and width in pixels.  [default: that of the data or the preset]",
)
@click.option(
    "--preset", type=click.Choice(PRESETS), help="Networks and settings are those of this preset.  [default: celeba]"
)
@click.option(
    "--config",
    "config_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Data, networks and settings are those of this file, JSON or YAML, such as a run's training_options.json.",
)
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    help="The run gets a folder of its own in this one.  [default: runs; a resumed run keeps its folder]",
)
@click.option("--kimg", "total_kimg", type=Finite(), help="Train for so many thousands of images.")
@click.option("--batch", type=BATCH, help="An update sees so many images.")
@click.option("--batch-per-pass", type=BATCH, help="So many images go through the networks at a time.")
@click.option("--seed", type=SEED, help="Fixes the networks, the codes and the order of the data.  [default: 0]")
@click.option("--snap", "snapshot_kimg", type=Finite(), help="So many thousands of images lie between snapshots.")
@click.option(
    "--checkpoint-minutes",
    type=Finite(),
    help="A checkpoint to go on from is written every so many minutes, besides one at each snapshot.  [default: 10]",
)
@click.option("--keep", type=click.IntRange(1), default=2, help="So many of the newest checkpoints stay.")
@click.option(
    "--resume",
    type=click.Path(path_type=Path),
    help="Go on in a run's folder, with its data, networks and settings, or from a network file.",
)
@click.option(
    "--module-list", help="The generator has these modules, such as '[Const-512, ResConv-up-1, C_spgroup-4-5]'."
)
@click.option(
    "--mask",
    type=click.Choice(["sc", "softmax", "none"]),
    help="Codes act in the rectangles of spatial constriction, in softmax masks, or everywhere.",
)
@click.option("--rects", type=click.IntRange(1, 64), help="A mask is made of so many rectangles, the paper's J.")
@click.option("--codes", type=click.IntRange(1, 4096), help="The modules that read codes share so many in all.")
@click.option("--width", type=Finite(0.01, 64), help="All networks have so many times the channels.")
@click.option(
    "--model",
    type=click.Choice(["ps_sc", "info_gan", "ib_gan", "gan"]),
    help="The codes are learned by this model's loss.",
)
@click.option(
    "--z-dim", type=click.IntRange(1, 4096), help="The codes of ib_gan stand for so many random numbers.  [default: 16]"
)
@click.option(
    "--bottleneck-weight", type=Finite(0), help="The codes of ib_gan are held to N(0, 1) by this weight, its beta."
)
@click.option("--latents", type=click.Choice(["uniform", "normal"]), help="Codes are drawn from this distribution.")
@click.option("--gamma", "r1_gamma", type=Finite(), help="The R1 penalty has this weight.")
@click.option("--code-weight", type=Finite(), help="The loss on the codes has this weight, the paper's lambda.")
@click.option(
    "--perturbation", type=Finite(), help="The perceptual simplicity loss perturbs a code by this, the paper's eps."
)
@click.option(
    "--unlock-kimg",
    type=Finite(),
    help="Codes join one level after the other, so many thousands of images apart.",
)
@click.option("--unlock-first", type=click.Choice(["finest", "coarsest"]), help="The codes of this level begin.")
@click.option(
    "--overlap-weight",
    type=Finite(0),
    help="The finest level's masks are held apart by this weight on how much they overlap.",
)
@click.option(
    "--reader-noise",
    type=Finite(0),
    help="The recogniser sees images in [-1, 1] with noise of this deviation: what it reads has to be seen.",
)
@click.option(
    "--regularizer",
    type=click.Choice(["none", "hessian", "orojar", "infogan_cr", "vp"]),
    help="Rivals hold codes to act apart: Hessian Penalty, orthogonal Jacobians, and telling from two images which "
    "code they share (infogan_cr) or which changed (vp).",
)
@click.option("--regularizer-weight", type=Finite(0), help="The regulariser has this weight.")
@click.option("--lr", "learning_rate", type=Finite(), help="All networks learn at this rate.")
@click.option("--ema-kimg", type=Finite(), help="Averaged networks forget half in so many thousands of images.")
@click.option(
    "--average-recognizer/--no-average-recognizer",
    default=None,
    help="Keep an averaged recogniser as well as the averaged generator, and measure that one.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "tf32", "bf16", "fp16"]),
    help="Convolutions compute in this; bf16 is fast on cards, and on CPUs with AMX or AVX-512 BF16.",
)
@click.option(
    "--cuda-graphs/--no-cuda-graphs",
    default=None,
    help="Give a card each pass through the networks as one CUDA graph, not kernel by kernel.  [default: on]",
)
@click.option("--mirror/--no-mirror", default=None, help="Flip half of the real images.")
@click.option(
    "--augment",
    type=click.Choice(["none", "ada", "fixed"]),
    help="The discriminator sees augmented images: as many as it overfits (ada), or a fixed share.",
)
@click.option(
    "--augment-probability", type=Finite(0, 1), help="Each augmentation acts with this probability, at first with ada."
)
@click.option("--augment-target", type=Finite(0, 1), help="With ada, D's answers to real images keep this mean sign.")
@click.option(
    "--augment-kimg", type=Finite(), help="With ada, the probability can go from 0 to 1 in so many thousands of images."
)
@click.option("--freeze-d", type=click.IntRange(0, 16), help="So many first blocks of D keep their weights.")
@click.option("--crop", type=click.Choice(["celeba"]), help="Crop aligned CelebA images to 128x128 faces.")
@click.option("--background", help="Transparent pixels show this colour: white, black or #rrggbb.  [default: white]")
@workers_option
@click.option("--skip-bad", is_flag=True, help="Train without damaged pictures, and count them.")
@click.option("--tpl", "tpl_preset", help="Measure TPL after each snapshot with this preset, such as 'tpl_small_0.3'.")
@click.option(
    "--metrics",
    "metric_names",
    type=Names(),
    default=None,
    help="Measure these after each snapshot, such as 'fid,factor_vae'; `sc-layers metrics measure -h` lists them.",
)
@with_options(distance_options)
@with_options(feature_options)
@click.option(
    "--tensorboard", is_flag=True, help="Write losses, pictures and what --tpl and --metrics measure for TensorBoard."
)
@click.option("--wandb", "wandb_project", help="Show what --tensorboard writes in this project of Weights & Biases.")
@click.option("--dry-run", is_flag=True, help="Print the settings and the size of the networks, and stop.")
@click.option(
    "--gpus",
    type=click.IntRange(1, 64),
    help="So many processes of this machine share every batch, each on a GPU of its own, or all on the CPU.",
)
@device_option
def train(
    config_file: Path | None,
    outdir: Path | None,
    resume: Path | None,
    workers: int | None,
    skip_bad: bool,
    tpl_preset: str | None,
    metric_names: list[str] | None,
    distance: str,
    weights: Path | None,
    features: str,
    feature_weights: Path | None,
    num_images: int,
    tensorboard: bool,
    wandb_project: str | None,
    dry_run: bool,
    gpus: int | None,
    device: str,
    keep: int,
    **options: Any,
) -> None:
    """Train a PS-SC GAN, or one of the paper's baselines.

    Every option without a default takes its value from the preset, from --config, or from the run to --resume, which
    goes on in its own folder from its newest whole checkpoint unless --outdir is given. SIGINT and SIGTERM leave a
    checkpoint. With --gpus, or under torchrun, which does so on several machines, processes share every batch.
    """
    from ..training import Interrupted
    from ..training import train as run
    from ..training.board import Board
    from ..training.processes import is_shared
    from ..training.run_dir import remove_if_empty

    if tpl_preset is None and metric_names is None:
        _refuse_given("distance", "weights", "features", "feature_weights", "num_images")
    if gpus is not None:
        _check_gpus(gpus, device)
        if not is_shared():
            sys.exit(_launched(gpus))
    given = {name: value for name, value in options.items() if value is not None}
    if resume is not None and config_file is not None:
        raise click.UsageError("--config and --resume exclude each other: a run goes on with its own settings")
    source = {name: given.pop(name) for name in _SOURCE if name in given}
    with _Place.found(device) as place:
        with place.processes.together():
            if resume is None:
                plan = _Plan.of_file(config_file) if config_file is not None else _Plan()
                plan.source |= source
                state, dataset = _new_training(plan, given, place, skip_bad)
                meta = plan.meta(dataset)
            else:
                state, dataset, meta = _resumed_training(resume, source, given, place, skip_bad)
            watchers = _Watchers()
            if place.processes.is_first:
                watchers.tpl = None if tpl_preset is None else _tpl_hook(tpl_preset, distance, weights)
                watchers.metrics = _metrics_hook(
                    metric_names or [],
                    meta,
                    distance=distance,
                    weights=weights,
                    features=features,
                    feature_weights=feature_weights,
                    num_images=num_images,
                )
        _describe(state, dataset, place)
        if dry_run:
            place.tell(json.dumps(state.config.to_dict(), indent=2))
            return
        with place.processes.together():
            if resume is not None and resume.is_dir() and outdir is None:
                run_dir = resume
            else:
                run_dir = _new_folder(place, outdir or Path("runs"), _description(meta, state, given))
            watched = place.processes.is_first and (tensorboard or wandb_project is not None)
            hooks = watchers.hooks(Board(run_dir, wandb_project) if watched else None)
        place.tell(f"writing to {run_dir}")
        try:
            path = run(state, dataset, run_dir, meta, hooks, place.processes.is_first, workers, skip_bad, keep)
        except Interrupted as interrupted:
            place.tell(f"{interrupted}; to go on: sc-layers train --resume {run_dir}", err=True)
            sys.exit(128 + interrupted.signal)
        finally:
            remove_if_empty(run_dir)
        place.tell(f"finished: {path}")


def _launched(count: int) -> int:
    from ..training.processes import ProcessLost, launch

    try:
        return launch(["-m", "sc_layers", *sys.argv[1:]], count)
    except ProcessLost as error:
        raise click.ClickException(str(error)) from error


def _check_gpus(count: int, device: str) -> None:
    import torch

    there = torch.cuda.device_count()
    if device in ("auto", "cuda") and there and count > there:
        raise click.UsageError(f"--gpus {count}, but there are {there}")
    if device not in ("auto", "cuda", "cpu"):
        raise click.UsageError(f"--gpus takes the first {count} GPUs, and excludes --device {device}")
    started = int(os.environ.get("LOCAL_WORLD_SIZE", count))
    if started != count:
        raise click.UsageError(f"--gpus {count}, but torchrun started {started} processes on this machine")


@dataclass(frozen=True)
class _Place:
    """Where this process trains: on which device, and with whom.

    Attributes:
        device: the device.
        processes: those that share the training.
    """

    device: torch.device
    processes: Processes

    @classmethod
    @contextlib.contextmanager
    def found(cls, device: str) -> Iterator[_Place]:
        """The place in a block; what another process tells the user of is not told again."""
        import torch

        from ..training.processes import Processes, ProcessLost, is_shared, number_on_machine

        if is_shared() and device in ("auto", "cuda") and torch.cuda.is_available():
            device = f"cuda:{number_on_machine()}"
            torch.cuda.set_device(device)
        where = pick_device(device)
        try:
            with Processes.joined(where.type == "cuda") as processes:
                yield cls(where, processes)
        except ProcessLost:
            if torch.distributed.is_torchelastic_launched():  # which tells
                time.sleep(_GRACE)
                sys.exit(1)
            raise

    def tell(self, message: str, err: bool = False) -> None:
        """Print a message, in the first process."""
        if self.processes.is_first:
            click.echo(message, err=err)


def _new_folder(place: _Place, outdir: Path, description: str) -> Path:
    """The folder of a new run, which the first process makes and tells the others."""
    from ..training import create_run_dir

    made = create_run_dir(outdir, description) if place.processes.is_first else None
    folder: Path = place.processes.of_first(made)
    return folder


@dataclass
class _Plan:
    """Where a new training's images come from, and what it starts with.

    Attributes:
        source: options that say which images, and the preset.
        networks: configurations as `to_dict` writes them, where a file names them; else the preset's.
        training: settings as `to_dict` writes them, where a file names them; else the preset's.
    """

    source: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] | None = None
    training: dict[str, Any] | None = None

    @classmethod
    def of_file(cls, path: Path) -> _Plan:
        """What a run's `training_options.json`, or a file like it, says."""
        text = bytes(read_file(path)).decode()
        try:
            content = require("yaml", "train").safe_load(text) if path.suffix in (".yaml", ".yml") else json.loads(text)
        except Exception as error:  # of either library
            raise click.UsageError(f"{path} is no valid {path.suffix or 'JSON'}: {error!s:.200}") from error
        parts = (
            {name: content.pop(name, None) for name in ("networks", "training")} if isinstance(content, dict) else {}
        )
        unknown = set(content) - set(_SOURCE) if isinstance(content, dict) else {"no mapping"}
        if unknown or not all(isinstance(part, dict | None) for part in parts.values()):
            raise click.UsageError(
                f"{path} must hold {', '.join((*_SOURCE, 'networks', 'training'))}, got {', '.join(sorted(unknown))}"
            )
        return cls({name: value for name, value in content.items() if value is not None}, **parts)

    @property
    def preset(self) -> str:
        """The preset for what no file names."""
        return str(self.source.get("preset", "celeba"))

    def config(self, given: dict[str, Any], processes: int = 1) -> TrainingConfig:
        """The settings, where the options that are given come before the file's or the preset's."""
        from ..training import TrainingConfig, training_preset

        before = training_preset(self.preset) if self.training is None else TrainingConfig.from_dict(self.training)
        return before.shared(_settings(given), processes)

    def base_networks(self, resolution: int | None, num_channels: int | None) -> NetworkPreset:
        """The file's networks or the preset's, before the options that change them."""
        from ..models import network_preset

        if self.networks is None:
            return network_preset(self.preset, resolution, num_channels)
        return _networks_of(self.networks)

    def meta(self, dataset: Dataset) -> dict[str, Any]:
        """What to keep beside the networks, to find the images again."""
        return {**dict.fromkeys(_SOURCE), **self.source, "preset": self.preset, "resolution": dataset.resolution}


def _open(source: dict[str, Any], skip_bad: bool) -> Dataset:
    from ..data import open_dataset

    if "data" not in source:
        raise click.UsageError("--data is missing: shapes3d, dsprites, clevr, or where the pictures are")
    background = source.get("background") or "white"
    dataset = open_dataset(source["data"], source.get("resolution"), source.get("crop"), background, skip_bad)
    _check_data(dataset, skip_bad)
    return dataset


def _description(meta: dict[str, Any], state: TrainingState, given: dict[str, Any]) -> str:
    """The name of a run's folder: data, preset, model, and every setting that was given and changes the result."""
    names = [name for name in given if name not in _NO_DIFFERENCE]
    settings = [f"{name}{given[name]}" for name in sorted(names) if name != "module_list"]
    if "module_list" in given:
        settings.append(f"modules{zlib.crc32(given['module_list'].encode()):08x}")
    name = f"{Path(meta['data']).stem}{meta['resolution']}-{meta['preset']}-{state.config.model}"
    return "-".join([name, *settings])


@dataclass
class _Watchers:
    """What looks at a training after each snapshot, in the first process.

    Attributes:
        tpl: measures TPL.
        metrics: measures others.
    """

    tpl: TraversalLengthHook | None = None
    metrics: SnapshotMetrics | None = None

    def hooks(self, board: Board | None) -> list[SnapshotHook]:
        """The hooks for the training loop; `board` shows what they measure too."""
        from ..pictures.sight import CodeWatch

        hooks: list[SnapshotHook] = []
        for watcher in (CodeWatch(), self.tpl, self.metrics):
            if watcher is not None:
                watcher.writer = None if board is None else board.writer
                hooks.append(watcher.after_snapshot)
        return hooks if board is None else [*hooks, board.after_snapshot]


def _metrics_hook(names: list[str], meta: dict[str, Any], **settings: Any) -> SnapshotMetrics | None:
    from ..metrics import MeasureSettings
    from ..metrics.snapshot_metrics import SnapshotMetrics

    if not names:
        return None
    source = {name: meta[name] for name in ("data", "resolution", "crop")}
    return SnapshotMetrics(names, MeasureSettings(**source, **settings))


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


def _settings(given: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in _NETWORKS}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _refuse_given(*names: str) -> None:
    """Refuse options with defaults that say how to measure, where nothing is measured."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            raise click.UsageError(f"{_option(name)} belongs to --tpl or --metrics, and neither is given")


def _check_looked_at(config: TrainingConfig, given: dict[str, Any]) -> None:
    """Refuse options that this training would not look at."""
    for name in sorted(given.keys() & _BELONGS_TO.keys()):
        deciding = _BELONGS_TO[name]
        if not any(getattr(config, decider) in values for decider, values in deciding.items()):
            owners = " or ".join(f"{_option(decider)} {', '.join(values)}" for decider, values in deciding.items())
            found = ", ".join(f"{decider} {getattr(config, decider)!r}" for decider in deciding)
            raise click.UsageError(f"{_option(name)} belongs to {owners}, got {found}")
    if "unlock_first" in given and not config.unlock_kimg:
        raise click.UsageError("--unlock-first belongs to --unlock-kimg above 0, and all codes act from the start")


def _new_training(plan: _Plan, given: dict[str, Any], place: _Place, skip_bad: bool) -> tuple[TrainingState, Dataset]:
    from ..training import TrainingState

    config = plan.config(given, place.processes.count)
    _check_looked_at(config, given)
    dataset = _open(plan.source, skip_bad)
    networks = plan.base_networks(dataset.resolution, dataset.num_channels)
    modules = _modules(networks, given)
    generator = dataclasses.replace(networks.generator, module_list=modules)
    z_dim = given.get("z_dim", networks.recognizer.z_dim or _Z_DIM) if config.model == "ib_gan" else None
    recognizer = dataclasses.replace(networks.recognizer, num_codes=generator.num_codes, z_dim=z_dim)
    networks = dataclasses.replace(networks, generator=generator, recognizer=recognizer)
    networks = networks.widened(given.get("width", 1))
    state = TrainingState.start(config, networks, place.device, place.processes)
    _check_images(state, dataset, "the configuration")
    return state, dataset


def what_trains(options: Mapping[str, Any]) -> tuple[object, ...]:
    """What the result of a new training depends on, by the names of its parsed options: equal where runs are the same.

    Raises:
        ValueError: options that no training has together.
        click.UsageError: an option that this training would not look at.
    """
    from ..models import format_module_list
    from ..training import TrainingConfig

    given = {name: value for name, value in options.items() if value is not None}
    plan = _Plan() if "config_file" not in given else _Plan.of_file(given["config_file"])
    plan.source |= {name: given[name] for name in _SOURCE if name in given}
    settings = {field.name for field in dataclasses.fields(TrainingConfig)}
    config = plan.config({name: value for name, value in given.items() if name in settings})
    _check_looked_at(config, given)
    networks = plan.base_networks(given.get("resolution"), None)
    others = (given.get("width"), given.get("z_dim"))
    return tuple(sorted(plan.source.items())), config, networks, format_module_list(_modules(networks, given)), others


def _modules(networks: NetworkPreset, given: dict[str, Any]) -> tuple[ModuleSpec, ...]:
    """The generator's modules, as the options that are given change them."""
    from ..models import parse_module_list
    from ..models.module_list import with_constriction

    modules = networks.generator.module_list
    if "module_list" in given:
        modules = parse_module_list(given["module_list"])
    return with_constriction(modules, given.get("mask"), given.get("rects"), given.get("codes"))


def _networks_of(described: dict[str, Any]) -> NetworkPreset:
    """The networks of a file, where a model without recogniser names none."""
    from ..models import NetworkPreset
    from ..models.discriminator import DiscriminatorConfig, RecognizerConfig
    from ..models.generator import GeneratorConfig

    generator = GeneratorConfig.from_dict(described.get("generator") or {})
    discriminator = DiscriminatorConfig.from_dict(described.get("discriminator") or {})
    recognizer = described.get("recognizer") or {**discriminator.to_dict(), "num_codes": generator.num_codes}
    return NetworkPreset("configuration", generator, discriminator, RecognizerConfig.from_dict(recognizer))


def _check_images(state: TrainingState, dataset: Dataset, what: object) -> None:
    expected = (state.G.img_channels, state.G.img_resolution)
    if expected != (dataset.num_channels, dataset.resolution):
        raise click.UsageError(
            f"{what} makes images with {expected[0]} channels and {expected[1]} pixels, "
            f"the data has {dataset.num_channels} and {dataset.resolution}"
        )


def _resumed_training(
    path: Path, source: dict[str, Any], given: dict[str, Any], place: _Place, skip_bad: bool
) -> tuple[TrainingState, Dataset, dict[str, Any]]:
    import torch

    from ..training import resume_training, training_preset

    for name in _NETWORKS:
        if name in given:
            raise click.UsageError(f"{_option(name)} and --resume exclude each other: the networks come from the file")
    default = training_preset(source.get("preset", "celeba"))
    torch.manual_seed(given.get("seed", 0))
    resumed = resume_training(path, place.device, _settings(given), default, place.processes)
    _check_looked_at(resumed.state.config, given)
    state, before = resumed.state, {name: resumed.meta.get(name) for name in _SOURCE}
    for name in ("preset", "resolution"):
        if before[name] is not None and source.get(name, before[name]) != before[name]:
            raise click.UsageError(f"--{name} cannot change from {before[name]} to {source[name]}")
    meta = {**resumed.meta, **before, **source}
    changed = [f"{name} {before[name]} -> {source[name]}" for name in source if source[name] != before[name]]
    dataset = _open({name: value for name, value in meta.items() if value is not None}, skip_bad)
    _check_images(state, dataset, path)
    place.tell(f"resuming from {path} at {state.images_seen / 1000:g} kimg")
    for message in [*resumed.messages, *changed]:
        place.tell(f"note: {message}")
    return state, dataset, {**meta, "preset": meta["preset"] or "celeba", "resolution": dataset.resolution}


def _describe(state: TrainingState, dataset: Dataset, place: _Place) -> None:
    from ..training.graphs import obstacle

    def size(network: nn.Module | None) -> str:
        return f"{sum(p.numel() for p in network.parameters()):,}" if network is not None else "none"

    place.tell(f"data: {dataset}")
    for note in dataset.notes:
        place.tell(f"note: {note}")
    if dataset.label_file is not None:
        place.tell(f"note: {dataset.label_file} is not read: training uses no labels")
    reason = obstacle(state.config, state.processes)
    if place.device.type == "cuda" and state.config.cuda_graphs and reason is not None:
        place.tell(f"note: no CUDA graphs, since {reason}")
    place.tell(f"parameters: G {size(state.G)}, D {size(state.D)}, Q {size(state.Q)}; {state.G.num_codes} codes")
