"""What several commands share: devices, seeds, and networks from files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch
    from torch import Tensor

device_option = click.option("--device", default="auto", help="'cpu', 'cuda', 'cuda:1'; 'auto' is cuda where it is.")
network_argument = click.argument("network", type=click.Path(path_type=Path))
code_option = click.option(
    "--code",
    type=click.Path(path_type=Path),
    help="For files of stylegan2-ada-pytorch, stylegan3 or rosinality's: your checkout of it, imported and run.",
)
label_option = click.option("--class", "label", type=int, help="Class of a conditional network.")
outdir_option = click.option(
    "--outdir", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), help="Where pictures go."
)


class Integers(click.ParamType[list[int]]):
    """Numbers and ranges, such as `0-3,7`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
        """The numbers in the text `value`; click passes `param` and `ctx` for its usage errors."""
        if isinstance(value, list):
            return value
        numbers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if match is None:
                self.fail(f"{value!r} is not a list of numbers and ranges such as '0-3,7'", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"the range {part.strip()!r} runs backwards", param, ctx)
            numbers += range(first, last + 1)
        return numbers


def pick_device(name: str) -> torch.device:
    """The device of this name, where "auto" is CUDA if there is any."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise click.UsageError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def load_generator(
    path: Path, device: torch.device, code: Path | None = None, label: int | None = None, seed: int = 0
) -> Any:
    """The averaged generator of a network file or of a run's newest snapshot, or the plain one where that is all.

    Args:
        path: file or folder.
        device: where the generator goes.
        code, label, seed: see `open_networks`.
    """
    from ..checkpoints.opening import generator_name, open_networks
    from ..checkpoints.snapshots import find_snapshot

    networks = open_networks(find_snapshot(path), code, label, seed)
    return networks[generator_name(networks)].to(device)


def at_seed(generator: Any, seed: int, latents: str, truncation: float) -> tuple[Any, Tensor]:
    """The generator and the codes [1, K] of a picture, truncated.

    A generator of another program gets a z of that seed, and its truncation leaves codes alone.

    Args:
        generator: ours, or an `AttachedGenerator`.
        seed: of the picture.
        latents: how codes are drawn, "normal" or "uniform".
        truncation: factor on codes, or psi of the other program.

    Raises:
        ValueError: codes of such a generator are to be uniform.
    """
    from ..attach import AttachedGenerator, draw_latent

    if not isinstance(generator, AttachedGenerator):
        return generator, codes_of_seed(seed, generator.num_codes, latents) * truncation
    if latents != "normal":
        raise ValueError(f"attached codes were trained with --latents normal, got {latents}")
    z = draw_latent(generator.generator, seed)
    view = AttachedGenerator(generator.generator, z, generator.c, truncation)
    return view.eval(), z[:, -generator.num_codes :]


def codes_of_seed(seed: int, num_codes: int, latents: str) -> Tensor:
    """Codes [1, K] drawn with a seed of their own; PyTorch's random numbers stay as they are.

    Args:
        seed: of the codes.
        num_codes: K.
        latents: "normal" or "uniform".
    """
    import torch

    from ..models.latents import draw_codes

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return draw_codes(1, num_codes, latents, "cpu")
