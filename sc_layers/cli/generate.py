"""`sc-layers generate`."""

from __future__ import annotations

import math

import click

from ._common import Drawing, Integers, Values, drawing_options

_MOST_COLUMNS = 8


@click.command()
@click.option("--seeds", type=Integers(), default="0-15", help="One picture is drawn for each.")
@click.option(
    "--noise", type=click.Choice(["const", "random", "none"]), default="const", help="Noise modules add this."
)
@click.option("--set", "values", type=Values(), default={}, help="Give codes these values, such as '3=1.5,7=-2'.")
@drawing_options
def generate(drawing: Drawing, seeds: list[int], noise: str, values: dict[int, float]) -> None:
    """Write one picture for each seed, and a grid of them all.

    NETWORK is a network file, the folder of a run, of which the newest snapshot is taken, or a folder of the hub.
    """
    import torch

    from ..images import WHITE, check_images, image_grid, save_png, to_uint8
    from ..pictures.edits import with_values

    opened = drawing.open()
    pictures = [(run, with_values(codes, values)) for run, codes in map(opened.at_seed, seeds)]
    drawing.outdir.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        made = torch.cat([run(codes, noise_mode=noise).cpu() for run, codes in pictures])
    images = to_uint8(check_images(made, torch.cat([codes for _, codes in pictures])))
    for seed, image in zip(seeds, images, strict=True):
        save_png(image, drawing.outdir / f"seed{seed:04d}.png")
    columns = _columns(len(seeds))
    blank = images.new_full((-len(seeds) % columns, *images.shape[1:]), WHITE)
    save_png(image_grid(torch.cat([images, blank]), columns, outline=False), drawing.outdir / "grid.png")
    click.echo(f"{len(seeds)} pictures and grid.png in {drawing.outdir}")


def _columns(count: int) -> int:
    """Columns of a grid that is no higher than wide, if they suffice for that, and leaves the fewest places empty."""
    fewest = min(_MOST_COLUMNS, math.ceil(math.sqrt(count)))
    return min(range(min(_MOST_COLUMNS, count), fewest - 1, -1), key=lambda columns: -count % columns)
