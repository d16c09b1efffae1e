"""Training with spatial constriction in stylegan2-ada-pytorch and stylegan3; their patches call what is here."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import click
import numpy as np
import torch
from torch import Tensor, nn

from ..attach import (
    AttachedGenerator,
    attach_like,
    attach_spatial_constriction,
    attachment_of,
    codes_of,
    copy_constriction,
    is_attached,
    widen,
    with_codes,
)
from ..checkpoints.errors import CheckpointError
from ..checkpoints.foreign.nvlabs import SETTINGS
from ..checkpoints.networks import NetworkRecord
from ..checkpoints.read import read_contents
from ..models import Recognizer
from . import compat
from .options import (
    FLAGS,
    ConstrictionOptions,
    describe_resumed,
    options_of_flags,
    parameter_groups,
    settings_of_checkpoint,
)
from .pairs import RandomState, add_pair_loss, random_state, replayed
from .sight import draw_sheet, report_codes

__all__ = [
    "PerceptualSimplicityStep",
    "Training",
    "attach_like",
    "configure",
    "register_metrics",
    "resume",
    "train_options",
    "widen",
]

METRICS = {"tpl_small": "tpl_small_0.3", "tpl_large": "tpl_large_0.3"}
TPL_LABELS = 4
DISTANCE_VARIABLE = "SC_LAYERS_TPL_DISTANCE"
IMAGE_CHANNELS = 3
_OWN_LOOP = "take attach_spatial_constriction and PerceptualSimplicityLoss in its own loop"
PAYING_PHASES = ("Gmain", "Gboth")

FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

compat.provide_modules()


def train_options(command: FunctionT) -> FunctionT:
    """Add the flags of spatial constriction to a click command."""
    for flag in reversed(FLAGS):
        metavar = {int: "INT", float: "FLOAT", bool: "BOOL", str: "LIST"}[flag.type]
        command = click.option(f"--{flag.name}", type=flag.type, metavar=metavar, help=flag.help)(command)
    return command


def configure(arguments: MutableMapping[str, Any], flags: Mapping[str, Any]) -> str:
    """Put what the flags say into the arguments of the training loop; return what the run's name should say.

    A pickle to resume from tells its constriction by itself. What cannot be attached is found here, before anything is
    written.

    Args:
        arguments: the keyword arguments of `training_loop`, changed in place.
        flags: values of the command line.

    Raises:
        click.UsageError: flags that contradict each other or do not fit the generator.
    """
    for optimizer in ("G_opt_kwargs", "D_opt_kwargs"):
        compat.repair_betas(arguments[optimizer])
    source = arguments.get("resume_pkl")
    try:
        found = None if source is None else _settings_of(source)
        options = options_of_flags(flags, resumed=source is not None, found=found)
        if options is not None:
            _try_on_a_generator(arguments, ConstrictionOptions(**options))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if options is None:
        unusable = [metric for metric in arguments.get("metrics", []) if metric in METRICS]
        if unusable:
            raise click.UsageError(f"--metrics={','.join(unusable)} measures codes: give --sc-codes")
        return ""
    if "attached" in options:
        print(describe_resumed(options))
    arguments["sc_kwargs"] = options
    return f"-sc{options['sc_codes']}"


def _settings_of(source: str) -> dict[str, Any] | None:
    """Settings of the constriction in a pickle, a file or a URL; nothing in it is run.

    None also where it is of no known form, such as a fork's: `resume` then looks at what the code base's own loader
    makes of it.
    """
    open_url = importlib.import_module("dnnlib").util.open_url
    try:
        with open_url(source) as file:
            contents = read_contents(io.BytesIO(file.read()))
    except CheckpointError:
        return None
    generator = contents.networks.get("G")
    attached = generator.attachment if isinstance(generator, NetworkRecord) else None
    return settings_of_checkpoint(attached, contents.meta.get(SETTINGS), "Q" in contents.networks)


def _try_on_a_generator(arguments: Mapping[str, Any], options: ConstrictionOptions) -> None:
    """Attach to a generator of the run's size, on the CPU, and forget it.

    Raises:
        ValueError: it cannot be made of these arguments, its resolutions are others than the flags say, or it lacks a
            part.
    """
    size = {
        "c_dim": 0,
        "img_resolution": arguments["training_set_kwargs"]["resolution"],
        "img_channels": IMAGE_CHANNELS,
    }
    construct = importlib.import_module("dnnlib").util.construct_class_by_name
    with torch.random.fork_rng(devices=[]):
        try:
            generator = construct(**arguments["G_kwargs"], **size)
        except TypeError as error:
            name = arguments["G_kwargs"].get("class_name")
            raise ValueError(f"{name} is not made as the generators of NVlabs are ({error}): {_OWN_LOOP}") from error
        _check_parts(generator)
        options.attach(generator)


def _check_parts(generator: nn.Module) -> None:
    """Refuse a generator whose loss can't be wrapped, such as eg3d's, whose mapping and synthesis are methods."""
    parts = [name for name in ("mapping", "synthesis") if not isinstance(getattr(generator, name, None), nn.Module)]
    if parts:
        raise ValueError(
            f"{type(generator).__name__} has no module {' and no module '.join(parts)}, which this training needs: "
            f"{_OWN_LOOP}"
        )


def resume(training: Training | None, data: Mapping[str, Any]) -> None:
    """`Training.resume`, or a refusal where the run has no constriction and the loaded pickle has.

    Args:
        training: None in a run without constriction.
        data: what the pickle holds.

    Raises:
        ValueError: going on would silently drop codes and recogniser.
    """
    if training is not None:
        training.resume(data)
    elif is_attached(data["G"]):
        arguments = attachment_of(data["G"]).arguments()
        raise ValueError(
            f"the pickle has spatial constriction ({arguments}), which training without it would drop: give "
            f"--sc-codes={arguments['num_codes']}, --sc-res with the resolutions of {', '.join(arguments['layers'])} "
            f"and --sc-rects={arguments['num_rects']}"
        )


class GeneratorAndRecognizer(nn.Module):
    """The G phase's module: gradients of both networks are switched, cleaned and synchronised together.

    Args:
        G: the generator.
        Q: the recogniser.
    """

    def __init__(self, G: nn.Module, Q: nn.Module) -> None:
        super().__init__()
        self.G = G
        self.Q = Q


class Training:
    """Spatial constriction and recogniser of one training run, on every rank.

    Args:
        G: the fresh generator, to which constriction is attached.
        device: where the networks are trained.
        num_gpus: ranks.
        rank: this process's number, 0 for the one that writes.
        options: fields of `ConstrictionOptions`.

    Raises:
        ValueError: a generator without modules `mapping` and `synthesis`, or options that do not fit it.
    """

    def __init__(self, G: nn.Module, device: torch.device, num_gpus: int = 1, rank: int = 0, **options: Any) -> None:
        self.options = ConstrictionOptions(**options)
        self.device = device
        self.num_gpus = num_gpus
        self.rank = rank
        self.G = G
        _check_parts(G)
        self.options.attach(G)
        if self.options.sc_freeze_g:
            cast(Any, G).mapping.inner.w_avg_beta = 1.0  # the average of w stays where it is, too
        G.requires_grad_(False)
        self.Q: Recognizer | None = None
        if self.options.ps_weight > 0:
            net = cast(Any, G)
            self.Q = self.options.recognizer(net.img_resolution, net.img_channels).train().requires_grad_(False)
            self.Q.to(device)
        self.wrapped_Q: nn.Module | None = self.Q

    def resume(self, data: Mapping[str, Any]) -> None:
        """Prepare a loaded pickle, whose networks the training loop copies next, and take its recogniser.

        The networks of a pickle without constriction get it, as the identity, so that both averages and weights of the
        run start with the same layers.

        Args:
            data: what the pickle holds.

        Raises:
            ValueError: the pickle has other layers or codes than the flags say.
        """
        wanted = attachment_of(self.G).arguments()
        if not is_attached(data["G"]):
            average = attach_spatial_constriction(data["G_ema"].to(self.device), **wanted)
            if data["G"] is not average:
                attach_spatial_constriction(data["G"], init="random", **wanted)
                copy_constriction(average, data["G"])
        elif attachment_of(data["G"]).arguments() != wanted:
            raise ValueError(
                f"the pickle's spatial constriction is {attachment_of(data['G']).arguments()}, but the flags say "
                f"{wanted}: leave --sc-codes, --sc-res and --sc-rects out to go on with what the pickle has"
            )
        if self.Q is None:
            return
        if data.get("Q") is None:
            print("The pickle has no recogniser: starting with a fresh one.")
        else:
            self.Q.load_state_dict(data["Q"].state_dict())

    def distribute(self, wrap: bool) -> None:
        """Give all ranks the recogniser of rank 0.

        Args:
            wrap: synchronise its gradients by DistributedDataParallel (stylegan2-ada); otherwise the training loop
                reduces them (stylegan3).
        """
        if self.Q is None or self.num_gpus == 1:
            return
        if not wrap:
            for parameter in self.Q.parameters():
                torch.distributed.broadcast(parameter, src=0)
            return
        self.Q.requires_grad_(True)
        devices = [self.device] if self.device.type == "cuda" else None
        self.wrapped_Q = nn.parallel.DistributedDataParallel(self.Q, device_ids=devices, broadcast_buffers=False)
        self.Q.requires_grad_(False)

    def wrap_loss(self, loss: Any, report: Callable[[str, Any], Any]) -> Any:
        """The loss with perceptual simplicity added; `report(name, values)` is that of `training_stats`."""
        if self.wrapped_Q is None:
            return loss
        return PerceptualSimplicityStep(loss, self.G, self.wrapped_Q, self.options, report)

    def snapshot(self, G_ema: nn.Module, run_dir: str, cur_nimg: int) -> dict[str, Any]:
        """Draw a sheet of the codes beside the snapshot, and tell what it holds besides the code base's own networks.

        Args:
            G_ema: average of the generator, attached.
            run_dir: folder of the run; the sheet is `codes{kimg}.png`.
            cur_nimg: images seen.

        Returns:
            The settings, and the recogniser as `Q` where there is one.
        """
        if self.rank == 0:
            draw_sheet(G_ema, Path(run_dir) / f"codes{cur_nimg // 1000:06d}.png")
        held: dict[str, Any] = {SETTINGS: dataclasses.asdict(self.options)}
        if self.Q is not None:
            held["Q"] = copy.deepcopy(self.Q).eval().requires_grad_(False).cpu()
        return held

    def join(self, phases: list[Any]) -> None:
        """Let the phases of G train the recogniser, too, and give each part its learning rate."""
        own = [phase for phase in phases if phase.name.startswith("G")]
        optimizer = own[0].opt
        settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        optimizer.param_groups.clear()
        for parameters, multiplier in parameter_groups(self.G, self.Q, self.options):
            optimizer.add_param_group({**settings, "params": parameters, "lr": settings["lr"] * multiplier})
        if self.Q is not None:
            module = GeneratorAndRecognizer(self.G, self.Q).requires_grad_(False)
            for phase in own:
                phase.module = module


@dataclass
class _Pass:
    gain: float
    sync: bool


class PerceptualSimplicityStep:
    """A `StyleGAN2Loss` with perceptual simplicity added to its phases Gmain and Gboth (Eq. 8 and 9).

    The recogniser sees the images that the adversarial loss sees, before augmentation, and as many partners that
    differ in one code and share z, style mixing and noise.

    Args:
        loss: the loss object of either code base; its `run_G` is replaced.
        G: attached.
        Q: recogniser, wrapped where ranks synchronise it by wrapping.
        options: weight and perturbation.
        report: `training_stats.report`.
    """

    def __init__(
        self,
        loss: Any,
        G: nn.Module,
        Q: nn.Module,
        options: ConstrictionOptions,
        report: Callable[[str, Any], Any],
    ) -> None:
        self.loss = loss
        self.G = G
        self.Q = Q
        self.settings = options.loss()
        self.report = report
        self._pass: _Pass | None = None
        self._run_G = loss.run_G
        loss.run_G = self.run_G

    @property
    def synthesis(self) -> nn.Module:
        """As the loss calls it: wrapped for distribution in stylegan2-ada."""
        module = getattr(self.loss, "G_synthesis", None)
        return cast(nn.Module, cast(Any, self.G).synthesis if module is None else module)

    def accumulate_gradients(self, phase: str, **arguments: Any) -> None:
        """Accumulate gradients of `phase` as the loss does, whose `arguments` are given by keyword only."""
        if phase in PAYING_PHASES:
            self._pass = _Pass(arguments["gain"], arguments.get("sync", True))
        try:
            self.loss.accumulate_gradients(phase=phase, **arguments)
        finally:
            self._pass = None

    def run_G(self, z: Tensor, c: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Images of `z` and `c`, or images and w, as the loss makes them with `args` and `kwargs`.

        The first call of a paying phase makes pairs, path-length regularisation does not.
        """
        current, self._pass = self._pass, None
        if current is None:
            return self._run_G(z, c, *args, **kwargs)
        with _recorded_calls(self.synthesis, z.device) as calls:
            made = self._run_G(z, c, *args, **kwargs)
        images = made[0] if isinstance(made, tuple) else made
        state, (ws, *others), options = calls[0]

        def partners(codes: Tensor) -> Tensor:
            with _synchronized(self.synthesis, False), replayed(state, z.device):
                return cast(Tensor, self.synthesis(with_codes(self.G, ws, codes), *others, **options))

        codes = codes_of(self.G, ws).detach()
        with _synchronized(self.Q, current.sync):
            pair = add_pair_loss(images, codes, partners, self.Q, self.settings, current.gain)
        self.report("Loss/PS/loss", pair.loss)
        report_codes(self.G, pair.errors, self.report)
        return (pair.images, *made[1:]) if isinstance(made, tuple) else pair.images


class _Call(NamedTuple):
    """A call of a module: the state of the random numbers then, and its arguments."""

    state: RandomState
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@contextmanager
def _recorded_calls(module: nn.Module, device: torch.device) -> Iterator[list[_Call]]:
    """Collect the calls of `module`."""
    calls: list[_Call] = []

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(_Call(random_state(device), args, kwargs))

    handle = module.register_forward_pre_hook(record, prepend=True, with_kwargs=True)
    try:
        yield calls
    finally:
        handle.remove()


def _synchronized(module: nn.Module, sync: bool) -> AbstractContextManager[Any]:
    if sync or not isinstance(module, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return cast("AbstractContextManager[Any]", module.no_sync())


def register_metrics(register: Callable[[Callable[[Any], dict[str, float]]], Any]) -> None:
    """Add `tpl_small` and `tpl_large` (Eq. 11 and 12) by `register`, which is `metric_main.register_metric`.

    The distance is LPIPS, or what the environment variable SC_LAYERS_TPL_DISTANCE names.
    """
    compat.repair_matrix_root()
    for name, preset in METRICS.items():
        register(_metric(name, preset))


def _metric(name: str, preset: str) -> Callable[[Any], dict[str, float]]:
    def metric(options: Any) -> dict[str, float]:
        if options.rank != 0:  # the metric system broadcasts the numbers of rank 0
            return {name: float("nan"), f"{name}_active": float("nan")}
        from ..metrics.traversal_length import traversal_perceptual_length

        network = copy.deepcopy(options.G).to(options.device)
        distance = os.environ.get(DISTANCE_VARIABLE, "lpips")
        results = [
            traversal_perceptual_length(AttachedGenerator(network, c=label), None, preset, distance=distance)
            for label in real_labels(options)
        ]
        total, active = (sum(numbers) / len(results) for numbers in zip(*map(_numbers, results), strict=True))
        return {name: total, f"{name}_active": active}

    metric.__name__ = name
    return metric


def _numbers(result: Any) -> tuple[float, float]:
    return result.total, float(result.num_active)


def real_labels(options: Any) -> list[Tensor | None]:
    """Labels of images drawn from the training set, [1, c_dim] each, over which TPL is averaged; None without classes.

    The zero label, which no image has, would show a network that nobody trained.

    Args:
        options: `MetricOptions` of the code base.
    """
    if not getattr(options.G, "c_dim", 0):
        return [None]
    dataset = importlib.import_module("dnnlib").util.construct_class_by_name(**options.dataset_kwargs)
    indices = np.random.RandomState(0).randint(len(dataset), size=TPL_LABELS)
    return [torch.from_numpy(np.asarray(dataset.get_label(int(index)), np.float32))[None] for index in indices]
