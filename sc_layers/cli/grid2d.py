"""`sc-layers grid2d`."""

from __future__ import annotations

import click

from ._common import POINTS, Drawing, Integers, drawing_options
from .traverse import Range


@click.command()
@click.option("--codes", type=Integers(), required=True, help="The first changes down, the second across: '3,7'.")
@click.option("--seeds", type=Integers(), default="0", help="One plane is drawn for each, around its codes.")
@click.option("--points", type=POINTS, default=7, help="The plane has so many pictures a side.")
@click.option("--range", "bound", type=Range(), default="-2,2", help="Both codes go from the first to the second.")
@drawing_options
def grid2d(drawing: Drawing, codes: list[int], seeds: list[int], points: int, bound: tuple[float, float]) -> None:
    """Draw the plane of two codes: how they act together (Fig. 3). `sc-layers metrics rotation` measures it.

    NETWORK is a network file, the folder of a run, of which the newest snapshot is taken, or a folder of the hub.
    """
    import torch

    from ..images import save_png
    from ..pictures.edits import plane_sheet

    if len(codes) != 2:
        raise click.UsageError(f"--codes takes two codes, such as '3,7', got {','.join(map(str, codes))}")
    if points < 2:
        raise click.UsageError(f"--points must be at least 2, got {points}")
    opened = drawing.open()
    values = torch.linspace(*bound, points).tolist()
    for seed in seeds:
        run, base = opened.at_seed(seed)
        sheet = plane_sheet(run, base, (codes[0], codes[1]), values)
        drawing.outdir.mkdir(parents=True, exist_ok=True)
        save_png(sheet, drawing.outdir / f"plane{seed:04d}.png")
    click.echo(f"a PNG of each of {len(seeds)} seeds in {drawing.outdir}")
