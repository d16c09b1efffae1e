"""What several commands share: devices, seeds, and networks from files."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    import torch

    from ..checkpoints.opening import Opened


class Finite(click.FloatRange):
    """A number in a range, neither infinite nor not-a-number, which a range of click's lets through."""

    def _describe_range(self) -> str:
        return "" if self.min is None and self.max is None else super()._describe_range()

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number in `value`; click passes `param` and `ctx` for its usage errors."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


# Ranges within which no option asks for more memory or work than anybody can mean.
LARGEST_SEED = 2**32 - 1
LARGEST_BATCH = 2**16
SEED = click.IntRange(0, LARGEST_SEED)
BATCH = click.IntRange(max=LARGEST_BATCH)
RESOLUTION = click.IntRange(max=2**14)
POINTS = click.IntRange(max=1000)
MOST_NUMBERS = 100_000  # in a list of seeds or codes: each is a picture

device_option = click.option(
    "--device", default="auto", help="Computes on this device: 'cpu', 'cuda', 'cuda:1', or 'auto', cuda where it is."
)
network_argument = click.argument("network", type=click.Path(path_type=Path))
code_option = click.option(
    "--code",
    type=click.Path(path_type=Path),
    help="A file of stylegan2-ada-pytorch, stylegan3 or rosinality's needs your checkout of it here, which is run.",
)
label_option = click.option("--class", "label", type=int, help="A conditional network draws this class.")
outdir_option = click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out"),
    help="Pictures go into this folder.",
)
_SOURCE_OPTIONS = (
    network_argument,
    click.option(
        "--latents",
        type=click.Choice(["normal", "uniform"]),
        help="Codes are drawn from this distribution.  [default: as in training]",
    ),
    click.option(
        "--truncation",
        type=Finite(),
        default=1.0,
        help="Multiplies the seed's codes; it is psi for the w of other programs.",
    ),
    code_option,
    label_option,
    click.option(
        "--encoded",
        type=click.Path(path_type=Path),
        help="Seeds number the images in this file of `sc-layers encode`, which are drawn instead.",
    ),
    device_option,
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
            match = re.fullmatch(r"\s*(\d{1,20})(?:-(\d{1,20}))?\s*", part)
            if match is None:
                self.fail(f"{value!r} is not a list of numbers and ranges such as '0-3,7'", param, ctx)
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                self.fail(f"the range {part.strip()!r} runs backwards", param, ctx)
            if len(numbers) + last - first >= MOST_NUMBERS or last > LARGEST_SEED:
                self.fail(f"{value!r} names too much: at most {MOST_NUMBERS} numbers up to {LARGEST_SEED}", param, ctx)
            numbers += range(first, last + 1)
        return numbers


class Values(click.ParamType[dict[int, float]]):
    """Codes and values, such as `3=1.5,7=-2`."""

    name = "values"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> dict[int, float]:
        """Values by number of the code in the text `value`; click passes `param` and `ctx` for its usage errors."""
        if isinstance(value, dict):
            return value
        values = {}
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d{1,6})\s*=\s*(\S{1,40})\s*", part)
            if match is None:
                self.fail(f"{part!r} gives no code a value, such as '3=1.5'", param, ctx)
            values[int(match[1])] = Finite().convert(match[2], param, ctx)
        return values


def pick_device(name: str) -> torch.device:
    """The device of this name, where "auto" is CUDA if there is any."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # "meta" has no numbers
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise click.UsageError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return device


@dataclass(frozen=True)
class Source:
    """Which generator a command takes, and how it draws.

    Attributes:
        network: network file, or folder of a run, of which the newest snapshot is taken.
        latents: how codes are drawn, "normal" or "uniform"; None takes what the file records.
        truncation: factor on codes, or psi of another program's generator.
        code: checkout of that program.
        label: class of a conditional generator.
        encoded: file of encoded images, which are drawn instead of the pictures of seeds.
        device: name of the device to compute on.
    """

    network: Path
    latents: str | None
    truncation: float
    code: Path | None
    label: int | None
    encoded: Path | None
    device: str

    def open(self) -> Opened:
        """Load the generator.

        Raises:
            ValueError: no generator, one whose options do not fit, or uniform codes of another program's generator.
        """
        from ..checkpoints.opening import open_generator

        device = pick_device(self.device)
        return open_generator(self.network, self.code, self.label, self.latents, self.truncation, device, self.encoded)


@dataclass(frozen=True)
class Drawing(Source):
    """What the commands that write pictures are told alike.

    Attributes:
        outdir: folder for the pictures.
    """

    outdir: Path


def source_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Source`; the decorated `function` gets a `Source` as its first argument."""
    return _gathering(Source, _SOURCE_OPTIONS, function)


def drawing_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `Drawing`; the decorated `function` gets a `Drawing` as its first argument."""
    return _gathering(Drawing, (*_SOURCE_OPTIONS, outdir_option), function)


def _gathering(kind: type[Source], options: tuple[Any, ...], function: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(function)
    def command(**given: Any) -> None:
        own = {field.name: given.pop(field.name) for field in dataclasses.fields(kind)}
        function(kind(**own), **given)

    for option in reversed(options):
        command = option(command)
    return command
