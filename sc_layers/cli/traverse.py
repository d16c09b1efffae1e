"""`sc-layers traverse`."""

from __future__ import annotations

import click

from ._common import POINTS, Drawing, Finite, Integers, drawing_options


@click.command()
@click.option("--seeds", type=Integers(), default="0", help="One traversal is drawn for each, around its codes.")
@click.option("--points", type=POINTS, default=7, help="A row has so many pictures.")
@click.option("--range", "bound", type=Finite(), default=2.0, help="Each code sweeps from minus this to this.")
@click.option("--codes", "dims", type=Integers(), help="Sweep these codes, such as '0-3,7'.  [default: all]")
@drawing_options
def traverse(drawing: Drawing, seeds: list[int], points: int, bound: float, dims: list[int] | None) -> None:
    """Write a picture in which each row sweeps one code and ends with its mask, and the same as a GIF.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken.
    """
    from ..images import save_gif, save_png
    from ..pictures.sweeps import sweep_codes

    opened = drawing.open()
    for seed in seeds:
        run, base = opened.at_seed(seed)
        sweep = sweep_codes(run, base[0], points, bound, dims)
        drawing.outdir.mkdir(parents=True, exist_ok=True)
        save_png(sweep.picture(), drawing.outdir / f"traverse{seed:04d}.png")
        save_gif(sweep.frames(), drawing.outdir / f"traverse{seed:04d}.gif")
        click.echo(f"seed {seed}: rows are codes {', '.join(map(str, sweep.dims))}")
    click.echo(f"a PNG and a GIF of each of {len(seeds)} seeds in {drawing.outdir}")
