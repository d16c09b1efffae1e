"""`sc-layers grid2d`."""

from __future__ import annotations

from pathlib import Path

import click

from ._common import POINTS, Drawing, Integers, drawing_options
from .metrics import distance_options, with_options
from .traverse import Range


@click.command()
@click.option("--codes", type=Integers(), required=True, help="The first changes down, the second across: '3,7'.")
@click.option("--seeds", type=Integers(), default="0", help="One plane is drawn for each, around its codes.")
@click.option("--points", type=POINTS, default=7, help="The plane has so many pictures a side.")
@click.option("--range", "bound", type=Range(), default="-2,2", help="Both codes go from the first to the second.")
@click.option(
    "--rotated", is_flag=True, help="Add sweeps along directions between the codes, and the rotation curve (Eq. 10)."
)
@with_options(distance_options)
@drawing_options
def grid2d(
    drawing: Drawing,
    codes: list[int],
    seeds: list[int],
    points: int,
    bound: tuple[float, float],
    rotated: bool,
    distance: str,
    weights: Path | None,
) -> None:
    """Draw the plane of two codes: how they act together (Fig. 3).

    NETWORK is a network file, the folder of a run, of which the newest snapshot is taken, or a folder of the hub. With
    --rotated the picture is all of the figure: the plane, sweeps turned from the first code to the second, and how the
    distance along them grows as they turn, which `sc-layers metrics rotation` prints as numbers.
    """
    import torch

    from ..images import figure_image, save_png
    from ..metrics import make_distance, rotation_curve
    from ..metrics.generators import Sampling
    from ..pictures.edits import plane_sheet, rotated_sheet
    from ..pictures.sheet import stacked

    if len(codes) != 2:
        raise click.UsageError(f"--codes takes two codes, such as '3,7', got {','.join(map(str, codes))}")
    if points < 2:
        raise click.UsageError(f"--points must be at least 2, got {points}")
    measure = make_distance(distance, weights) if rotated else None
    opened = drawing.open()
    pair, values = (codes[0], codes[1]), torch.linspace(*bound, points).tolist()
    for seed in seeds:
        run, base = opened.at_seed(seed)
        parts = [plane_sheet(run, base, pair, values, opened.names)]
        if measure is not None:
            sampling = Sampling(opened.latents, device=opened.device)
            curve = rotation_curve(run, pair, distance=measure, base=base[0], sampling=sampling)
            parts += [rotated_sheet(run, base, pair, values, opened.names), figure_image(curve.figure())]
        drawing.outdir.mkdir(parents=True, exist_ok=True)
        save_png(stacked(parts), drawing.outdir / f"plane{seed:04d}.png")
    click.echo(f"a PNG of each of {len(seeds)} seeds in {drawing.outdir}")
