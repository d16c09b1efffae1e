"""Training with spatial constriction in stylegan2-ada-pytorch and stylegan3; their patches call what is here."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import click
import torch
from torch import Tensor, nn

from ..attach import RECORD, AttachedGenerator, attach_like, attachment_of, codes_of, widen, with_codes
from ..models import Recognizer
from . import compat
from .options import FLAGS, ConstrictionOptions, options_of_flags, parameter_groups
from .pairs import RandomState, add_pair_loss, random_state, replayed

__all__ = [
    "PerceptualSimplicityStep",
    "Training",
    "attach_like",
    "configure",
    "register_metrics",
    "train_options",
    "widen",
]

METRICS = {"tpl_small": "tpl_small_0.3", "tpl_large": "tpl_large_0.3"}
DISTANCE_VARIABLE = "SC_LAYERS_TPL_DISTANCE"
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

    Args:
        arguments: of `training_loop`.
        flags: values of the command line.

    Raises:
        click.UsageError: flags that contradict each other.
    """
    for optimizer in ("G_opt_kwargs", "D_opt_kwargs"):
        compat.repair_betas(arguments[optimizer])
    try:
        options = options_of_flags(flags, resumed=arguments.get("resume_pkl") is not None)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if options is not None:
        arguments["sc_kwargs"] = options
        return f"-sc{options['sc_codes']}"
    unusable = [metric for metric in arguments.get("metrics", []) if metric in METRICS]
    if unusable:
        raise click.UsageError(f"--metrics={','.join(unusable)} measures codes: give --sc-codes")
    return ""


class GeneratorAndRecognizer(nn.Module):
    """The G phase's module: gradients of both networks are switched, cleaned and synchronised together."""

    def __init__(self, G: nn.Module, Q: nn.Module) -> None:
        super().__init__()
        self.G = G
        self.Q = Q


class Training:
    """Spatial constriction and recogniser of one training run, on every rank.

    Args:
        G: the fresh generator, to which constriction is attached.
        device: of the training.
        num_gpus: ranks.
        rank: of this process.
        options: fields of `ConstrictionOptions`.
    """

    def __init__(self, G: nn.Module, device: torch.device, num_gpus: int = 1, rank: int = 0, **options: Any) -> None:
        self.options = ConstrictionOptions(**options)
        self.device = device
        self.num_gpus = num_gpus
        self.rank = rank
        self.G = G
        self.options.attach(G)
        G.requires_grad_(False)
        self.Q: Recognizer | None = None
        if self.options.ps_weight > 0:
            net = cast(Any, G)
            self.Q = self.options.recognizer(net.img_resolution, net.img_channels).train().requires_grad_(False)
            self.Q.to(device)
        self.wrapped_Q: nn.Module | None = self.Q

    def resume(self, data: Mapping[str, Any]) -> None:
        """Take the recogniser from a loaded pickle, and check that the pickle's constriction is that of this run.

        Raises:
            ValueError: the pickle has other layers or codes than the flags say.
        """
        found, wanted = data["G"], attachment_of(self.G).arguments()
        if hasattr(found, RECORD) and attachment_of(found).arguments() != wanted:
            raise ValueError(
                f"the pickle's spatial constriction is {attachment_of(found).arguments()}, but the flags say {wanted}: "
                "give the --sc-codes, --sc-res and --sc-rects that it was trained with"
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

    def snapshot(self) -> dict[str, nn.Module]:
        """What a snapshot holds besides the code base's own networks."""
        return {} if self.Q is None else {"Q": copy.deepcopy(self.Q).eval().requires_grad_(False).cpu()}

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
        loss: of either code base; its `run_G` is replaced.
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
        """As the loss's own, with keywords only."""
        if phase in PAYING_PHASES:
            self._pass = _Pass(arguments["gain"], arguments.get("sync", True))
        try:
            self.loss.accumulate_gradients(phase=phase, **arguments)
        finally:
            self._pass = None

    def run_G(self, z: Tensor, c: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As the loss's own; the first call of a paying phase makes pairs, path-length regularisation does not."""
        current, self._pass = self._pass, None
        if current is None:
            return cast("tuple[Tensor, Tensor]", self._run_G(z, c, *args, **kwargs))
        with _recorded_state(self.synthesis, z.device) as states:
            images, ws = self._run_G(z, c, *args, **kwargs)

        def partners(codes: Tensor) -> Tensor:
            with _synchronized(self.synthesis, False), replayed(states[0], z.device):
                return cast(Tensor, self.synthesis(with_codes(self.G, ws, codes)))

        codes = codes_of(self.G, ws).detach()
        with _synchronized(self.Q, current.sync):
            pair = add_pair_loss(images, codes, partners, self.Q, self.settings, current.gain)
        self.report("Loss/PS/loss", pair.loss)
        return pair.images, ws


@contextmanager
def _recorded_state(module: nn.Module, device: torch.device) -> Iterator[list[RandomState]]:
    """Collect the state of the random numbers at each call of `module`."""
    states: list[RandomState] = []
    handle = module.register_forward_pre_hook(lambda *_: states.append(random_state(device)))
    try:
        yield states
    finally:
        handle.remove()


def _synchronized(module: nn.Module, sync: bool) -> AbstractContextManager[Any]:
    if sync or not isinstance(module, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return cast("AbstractContextManager[Any]", module.no_sync())


def register_metrics(register: Callable[[Callable[[Any], dict[str, float]]], Any]) -> None:
    """Add `tpl_small` and `tpl_large` (Eq. 11 and 12) by `metric_main.register_metric`.

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

        generator = AttachedGenerator(copy.deepcopy(options.G).to(options.device))
        distance = os.environ.get(DISTANCE_VARIABLE, "lpips")
        result = traversal_perceptual_length(generator, None, preset, distance=distance)
        return {name: result.total, f"{name}_active": float(result.num_active)}

    metric.__name__ = name
    return metric
