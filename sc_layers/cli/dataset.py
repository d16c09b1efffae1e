"""`sc-layers dataset info` and `sc-layers dataset convert`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .._optional import require

if TYPE_CHECKING:
    from ..data import Dataset, PictureFiles
    from ..data.converting import Progress

MOST_LISTED = 20

background_option = click.option(
    "--background", default="white", help="Transparent pixels show this colour: white, black or #rrggbb."
)
workers_option = click.option(
    "--workers", type=click.IntRange(min=0), help="So many processes read pictures.  [default: up to 4]"
)


@click.group()
def dataset() -> None:
    """What a data set holds, and the zip of StyleGAN's programs made of it."""


def _listed(counts: Counter[str]) -> str:
    shown = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(MOST_LISTED))
    return f"{shown}, and {len(counts) - MOST_LISTED} others" if len(counts) > MOST_LISTED else shown


def _describe_pictures(source: Dataset | PictureFiles) -> tuple[str, str]:
    """Sizes and modes of the pictures."""
    from ..data import PictureFiles

    if isinstance(source, PictureFiles):
        sizes = Counter(f"{header.width}x{header.height}" for header in source.headers)
        return _listed(sizes), _listed(Counter(header.mode for header in source.headers))
    return f"{source.resolution}x{source.resolution}", "L" if source.num_channels == 1 else "RGB"


def _describe_labels(source: Dataset | PictureFiles) -> str:
    try:
        labels = source.labels
    except ValueError as error:
        return f"cannot be used: {error}"
    if labels is None:
        return "none"
    if labels.ndim == 1:
        return f"{len(set(labels.tolist()))} classes from {labels.min()} to {labels.max()}"
    return f"vectors of {labels.shape[1]} numbers from {labels.min():g} to {labels.max():g}"


def _describe_factors(source: Dataset | PictureFiles) -> str | None:
    from ..data import PictureFiles, RenderedDataset

    if isinstance(source, RenderedDataset):
        sizes = [str(size) for size in source.factor_sizes]
    elif isinstance(source, PictureFiles) or source.factors is None:
        return None
    else:
        sizes = [str(len(set(column))) for column in source.factors.T.tolist()]
    names = source.factor_names or tuple(f"factor {number}" for number in range(len(sizes)))
    return ", ".join(f"{name} ({size})" for name, size in zip(names, sizes, strict=True))


@dataset.command(short_help="Print what a data set holds, and its damaged files.")
@click.argument("source")
@click.option("--quick", is_flag=True, help="Read the beginnings of files only: no damage inside them shows.")
@background_option
@workers_option
def info(source: str, quick: bool, background: str, workers: int | None) -> None:
    """Print count, sizes, modes, labels and damaged files of SOURCE; exit status 1 if there are damaged ones.

    SOURCE is all that `sc-layers train --data` takes.
    """
    from ..data import PictureFiles, RenderedDataset, open_source
    from ..data.checking import find_damaged

    opened = open_source(source, background=background, skip_bad=True)
    sizes, modes = _describe_pictures(opened)
    click.echo(f"{opened.name}: {len(opened):,} pictures")
    click.echo(f"sizes: {sizes}")
    click.echo(f"modes: {modes}")
    click.echo(f"labels: {_describe_labels(opened)}")
    factors = _describe_factors(opened)
    if factors is not None:
        click.echo(f"factors: {factors}")
    damaged = list(opened.damaged.values()) if isinstance(opened, PictureFiles) else []
    for note in opened.notes:
        click.echo(f"note: {note}")
    if not quick and not isinstance(opened, RenderedDataset):
        found = require("tqdm", "train").tqdm(find_damaged(opened, workers), total=len(opened), unit="img", leave=False)
        damaged += [message for message in found if message is not None]
    click.echo(f"damaged: {len(damaged):,}{' (by the beginnings of files alone)' if quick else ''}")
    for message in damaged:
        click.echo(f"  {message}")
    if damaged:
        raise click.exceptions.Exit(1)


@dataset.command(short_help="Write a data set as PNGs of one size.")
@click.argument("source")
@click.argument("destination", type=click.Path(path_type=Path))
@click.option(
    "--resolution", type=int, help="Pictures get this height and width in pixels.  [default: what the crop leaves]"
)
@click.option("--crop", help="Crop to center, celeba, or a square from the middle such as 128x128.")
@click.option(
    "--resize",
    "kind",
    type=click.Choice(["lanczos", "box"]),
    default="lanczos",
    help="Sizes are changed by this filter.",
)
@click.option("--no-labels", is_flag=True, help="Leave labels out, also those that cannot be used.")
@click.option("--skip-bad", is_flag=True, help="Count damaged pictures and go on.")
@background_option
@workers_option
def convert(
    source: str,
    destination: Path,
    resolution: int | None,
    crop: str | None,
    kind: str,
    no_labels: bool,
    skip_bad: bool,
    background: str,
    workers: int | None,
) -> None:
    """Write the pictures of SOURCE as PNGs of one size to DESTINATION, a .zip of StyleGAN's kind or a folder.

    SOURCE is all that `sc-layers train --data` takes: folders, zips, TFRecords, .npz, .h5, MNIST, LMDBs of
    rosinality's program. An interrupted conversion goes on where it ended when the command is given again.
    """
    from ..data import converting, open_source
    from ..data.formats.resizing import parse_crop

    parsed = None if crop is None else parse_crop(crop)
    opened = open_source(source, background=background, skip_bad=skip_bad)
    for note in opened.notes:
        click.echo(f"note: {note}")
    recipe = converting.make_recipe(opened, resolution, parsed, kind, background)
    try:
        labels = None if no_labels else opened.labels
    except ValueError as error:
        raise click.UsageError(f"{error}; --no-labels leaves them out") from error
    steps = converting.convert(opened, destination, recipe, labels, skip_bad, workers)
    try:
        damaged = _follow(steps, recipe.num_pictures)
    except OSError as error:
        raise click.ClickException(
            f"{destination} cannot be written: {error}; the same command goes on from here"
        ) from error
    left_out = f", {len(damaged):,} damaged left out" if damaged else ""
    count, side = recipe.num_pictures - len(damaged), recipe.resolution
    click.echo(f"{count:,} pictures of {side}x{side} pixels in {destination}{left_out}")


def _follow(steps: Iterable[Progress], total: int) -> tuple[str, ...]:
    """Show the progress of a conversion; what was damaged."""
    damaged: tuple[str, ...] = ()
    with require("tqdm", "train").tqdm(total=total, unit="img") as bar:
        for step in steps:
            bar.update(step.done - bar.n)
            for message in step.damaged[len(damaged) :]:
                bar.write(f"left out: {message}")
            damaged = step.damaged
    return damaged
