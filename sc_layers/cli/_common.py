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
outdir_option = click.option(
    "--outdir", type=click.Path(file_okay=False, path_type=Path), default=Path("out"), help="Where pictures go."
)


class Integers(click.ParamType[list[int]]):
    """Numbers and ranges, such as `0-3,7`."""

    name = "numbers"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int]:
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


def load_generator(path: Path, device: torch.device) -> Any:
    """The averaged generator of a network file or of a run's newest snapshot, or the plain one where that is all."""
    from ..checkpoints import load_network
    from ..metrics.registry import Networks
    from ..training import find_snapshot

    return Networks.of(load_network(find_snapshot(path)), device).generator


def codes_of_seeds(seeds: list[int], num_codes: int, latents: str) -> Tensor:
    """Codes [S, K], each drawn with its own seed."""
    import torch

    from ..models.latents import draw_codes

    rows = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            rows.append(draw_codes(1, num_codes, latents, "cpu"))
    return torch.cat(rows)
