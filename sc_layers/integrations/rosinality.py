"""Training with spatial constriction in rosinality's stylegan2-pytorch; the patch calls what is here."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import importlib
import importlib.util
from collections.abc import Mapping, MutableMapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ..attach import (
    attach_spatial_constriction,
    attachment_of,
    copy_constriction,
    detach_spatial_constriction,
    widen,
)
from ..attach.hooks import LAYER
from ..checkpoints.pickles.torch_files import read_torch_file
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
from .sight import draw_sheet, report_codes, write_numbers

__all__ = ["Training", "add_arguments", "attach_from_checkpoint", "setup", "widen", "with_random_codes"]

AVERAGED_STEPS = 100  # of the recogniser's errors in the logs
SAMPLES = Path("sample")  # where the script puts its pictures
IMAGE_CHANNELS = 3  # the code base knows no others

compat.allow_argument_namespace()
if importlib.util.find_spec("torchvision") is not None:
    compat.repair_save_image(importlib.import_module("torchvision.utils"))
compat.repair_similarity()
compat.repair_percentile(np)
compat.repair_loaded_gradients()


def _flag_type(kind: type) -> Any:
    return (lambda text: text.lower() in ("1", "true", "yes")) if kind is bool else kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of spatial constriction to the script's `parser`."""
    for flag in FLAGS:
        for_argparse = flag.help.replace("%", "%%")
        parser.add_argument(f"--{flag.name}", type=_flag_type(flag.type), metavar=flag.type.__name__, help=for_argparse)


def setup(
    args: argparse.Namespace,
    generator: nn.Module,
    g_ema: nn.Module,
    g_optim: torch.optim.Optimizer,
    device: torch.device | str,
) -> Training | None:
    """Attach constriction to both generators, add its parameters to the optimiser; None where no flag asks for it.

    `args.latent` becomes the width of z with codes, and so do the latents that the script draws.

    Args:
        args: the script's flags, ours among them.
        generator: the one in training.
        g_ema: its moving average.
        g_optim: the optimiser of `generator`.
        device: where the networks are trained.

    Raises:
        SystemExit: flags that do not fit one another or the checkpoint, with what is wrong.
    """
    try:
        found = None if args.ckpt is None else _settings_of(args.ckpt)
        options = options_of_flags(vars(args), resumed=args.ckpt is not None, found=found)
        if options is None:
            return None
        training = Training(ConstrictionOptions(**options), args.size, generator, g_ema, g_optim, torch.device(device))
    except ValueError as error:
        raise SystemExit(f"train.py: error: {error}") from error
    if "attached" in options:
        print(describe_resumed(options))
    args.latent += training.options.sc_codes
    return training


def _settings_of(path: str) -> dict[str, Any] | None:
    """Settings of the constriction in a checkpoint."""
    checkpoint = read_torch_file(path)
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} holds a {type(checkpoint).__name__}, expected the dict of a checkpoint")
    return settings_of_checkpoint(checkpoint.get("sc"), checkpoint.get("sc_options"), "q" in checkpoint)


def attach_from_checkpoint(generator: nn.Module, checkpoint: MutableMapping[str, Any]) -> int:
    """Attach what a checkpoint's generator has attached, before its weights are loaded; returns the number of codes."""
    arguments = checkpoint.get("sc")
    if arguments is None:
        return 0
    attach_spatial_constriction(generator, init="random", **arguments)
    return attachment_of(generator).num_codes


def with_random_codes(generator: nn.Module, z: Tensor) -> Tensor:
    """z [N, 512] with codes from N(0, 1), if the generator has any."""
    return widen(generator, z, random=True)


class Training:
    """Spatial constriction and recogniser of one training run.

    Args:
        options: what the flags say.
        size: height and width of the images in pixels.
        generator: fresh, on its device, not wrapped.
        g_ema: its average, of equal weights.
        g_optim: the generator's optimiser, with one parameter group.
        device: where the networks are trained.
    """

    def __init__(
        self,
        options: ConstrictionOptions,
        size: int,
        generator: nn.Module,
        g_ema: nn.Module,
        g_optim: torch.optim.Optimizer,
        device: torch.device,
    ) -> None:
        self.options = options
        self.device = device
        self.generator = generator
        options.attach(generator)
        options.attach(g_ema)
        copy_constriction(generator, g_ema)
        self.arguments = attachment_of(generator).arguments()
        self.recognizer: Recognizer | None = None
        if options.ps_weight > 0:
            self.recognizer = options.recognizer(size, IMAGE_CHANNELS).to(device)
        self.wrapped: nn.Module | None = self.recognizer
        self._add_groups(generator, g_optim)
        self._state: RandomState | None = None
        self._steps = 0
        self._errors = torch.ones(options.sc_codes, device=device)
        self.settings = options.loss()

    def _add_groups(self, generator: nn.Module, g_optim: torch.optim.Optimizer) -> None:
        base = g_optim.param_groups[0]
        (_, own_lr), *added = parameter_groups(generator, self.recognizer, self.options)
        for parameters, multiplier in added:
            g_optim.add_param_group({"params": parameters, "lr": base["lr"] * multiplier})
        base["lr"] *= own_lr
        recognizer = self.recognizer
        if recognizer is not None:  # the script cleans only the generator's gradients, and steps twice
            g_optim.register_step_post_hook(lambda *_: recognizer.zero_grad())

    def prepare_checkpoint(
        self, checkpoint: MutableMapping[str, Any], generator: nn.Module, g_optim: torch.optim.Optimizer
    ) -> None:
        """Complete a checkpoint, so that the script's strict loading takes it; load the recogniser.

        A checkpoint without constriction gets it, as the identity, and the optimiser's fresh groups.

        Args:
            checkpoint: as loaded, changed in place.
            generator: attached.
            g_optim: its optimiser.

        Raises:
            ValueError: the checkpoint has other layers or codes than the flags say.
        """
        arguments = checkpoint.get("sc")
        if arguments is not None and arguments != self.arguments:
            raise ValueError(
                f"the checkpoint's spatial constriction is {arguments}, but the flags say {self.arguments}: leave "
                "--sc-codes, --sc-res and --sc-rects out to go on with what the checkpoint has"
            )
        if arguments is None:
            fresh = self._identity(generator, checkpoint["g_ema"])
            for network in ("g", "g_ema"):
                checkpoint[network] = {**fresh, **checkpoint[network]}
        if self.recognizer is not None and "q" in checkpoint:
            self.recognizer.load_state_dict(checkpoint["q"])
        elif self.recognizer is not None:
            print("The checkpoint has no recogniser: starting with a fresh one.")
        self._complete_optimizer(checkpoint["g_optim"], g_optim.state_dict())

    def _identity(self, generator: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weights of constriction that starts as the identity on a generator with these weights of its own."""
        trained = detach_spatial_constriction(copy.deepcopy(generator))
        trained.load_state_dict(weights, strict=False)  # its noise need not be there
        attach_spatial_constriction(trained, **self.arguments)
        return {name: value for name, value in trained.state_dict().items() if f".{LAYER}." in name}

    def _complete_optimizer(self, state: MutableMapping[str, Any], fresh: MutableMapping[str, Any]) -> None:
        """Give a saved optimiser state the groups it lacks, and every group the rate that the flags say."""
        groups = list(state["param_groups"][: len(fresh["param_groups"])])
        for index, group in enumerate(fresh["param_groups"]):
            if index == len(groups):
                groups.append(group)
            groups[index] = {**groups[index], "lr": group["lr"]}
        known = {number for group in groups for number in group["params"]}
        state["param_groups"] = groups
        state["state"] = {number: value for number, value in state["state"].items() if number in known}

    def distribute(self, args: argparse.Namespace) -> None:
        """Wrap the recogniser as the script wraps its networks where the flags `args` ask for several processes."""
        if self.recognizer is not None and args.distributed:
            devices = [args.local_rank] if self.device.type == "cuda" else None
            self.wrapped = nn.parallel.DistributedDataParallel(
                self.recognizer, device_ids=devices, broadcast_buffers=False
            )

    def prepare(self, noise: list[Tensor]) -> None:
        """To be called right before the images of the generator's step are made of `noise`.

        Args:
            noise: one z [N, z_dim + K], or two whose styles are mixed; the second gets the codes of the first.
        """
        width = noise[0].shape[1] - self.options.sc_codes
        for z in noise[1:]:
            z[:, width:] = noise[0][:, width:]
        if self.recognizer is not None:
            self._state = random_state(next(self.recognizer.parameters()).device)

    def add_pair_loss(self, generator: nn.Module, noise: list[Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Add the perceptual simplicity loss (Eq. 8 and 9) to images that `generator(noise)` just made.

        Returns:
            The images to go on with, and the mean loss for the logs.
        """
        if self.wrapped is None or self._state is None:
            return images, torch.zeros((), device=images.device)
        state, self._state = self._state, None
        module = getattr(generator, "module", generator)
        record = attachment_of(module)

        def partners(codes: Tensor) -> Tensor:
            latents = [torch.cat([z[:, : record.z_dim], codes], dim=1) for z in noise]
            unsynchronized = cast(Any, generator).no_sync() if module is not generator else nullcontext()
            with unsynchronized, replayed(state, images.device):
                return cast(Tensor, generator(latents)[0])

        codes = noise[0][:, record.z_dim :]
        pair = add_pair_loss(images, codes, partners, self.wrapped, self.settings, gain=1.0)
        self._steps += 1
        self._errors.lerp_(pair.errors.mean(0), 1 / min(self._steps, AVERAGED_STEPS))
        return pair.images, pair.loss.mean()

    def numbers(self) -> dict[str, float]:
        """Squared error of reading each code, 1 for nothing read, and how far its mask is open, by name, for the logs.

        Errors are averages over about the last 100 steps; there are none before the first, or without a recogniser.
        """
        found: dict[str, float] = {}
        report_codes(self.generator, self._errors[None], lambda name, value: found.update({name: float(value)}))
        return {name: value for name, value in found.items() if self._steps or not name.startswith("SC/error")}

    def state(self, g_ema: nn.Module, iteration: int) -> dict[str, Any]:
        """Draw a sheet of the codes beside the samples, and log their numbers; return our entries of a checkpoint.

        Args:
            g_ema: average of the generator, attached.
            iteration: number of the training step; the sheet is `sample/codes{iteration}.png`, the numbers are a line
                of `sample/stats.jsonl`, and in TensorBoard where that is installed.
        """
        draw_sheet(g_ema, SAMPLES / f"codes{iteration:06d}.png")
        write_numbers(self.numbers(), SAMPLES, iteration)
        recognizer = {} if self.recognizer is None else {"q": self.recognizer.state_dict()}
        return {"sc": self.arguments, "sc_options": dataclasses.asdict(self.options), **recognizer}
