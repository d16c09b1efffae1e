"""`sc-layers traverse`."""

from __future__ import annotations

from pathlib import Path

import click

from ._common import (
    Integers,
    codes_of_seeds,
    device_option,
    load_generator,
    network_argument,
    outdir_option,
    pick_device,
)


@click.command()
@network_argument
@click.option("--seeds", type=Integers(), default="0", help="One traversal each, from the codes of that seed.")
@click.option("--points", type=int, default=7, help="Pictures a row.")
@click.option("--range", "bound", type=float, default=2.0, help="Each code sweeps from minus this to this.")
@click.option("--codes", "dims", type=Integers(), help="Which codes, such as '0-3,7'.  [default: all]")
@click.option("--latents", type=click.Choice(["normal", "uniform"]), default="normal", help="How codes are drawn.")
@outdir_option
@device_option
def traverse(
    network: Path,
    seeds: list[int],
    points: int,
    bound: float,
    dims: list[int] | None,
    latents: str,
    outdir: Path,
    device: str,
) -> None:
    """Write a picture in which each row sweeps one code and ends with its mask, and the same as a GIF.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken.
    """
    from ..images import save_gif, save_png
    from ..traverse import sweep_codes

    torch_device = pick_device(device)
    generator = load_generator(network, torch_device)
    bases = codes_of_seeds(seeds, generator.num_codes, latents).to(torch_device)
    for seed, base in zip(seeds, bases, strict=True):
        sweep = sweep_codes(generator, base, points, bound, dims)
        outdir.mkdir(parents=True, exist_ok=True)
        save_png(sweep.picture(), outdir / f"traverse{seed:04d}.png")
        save_gif(sweep.frames(), outdir / f"traverse{seed:04d}.gif")
        click.echo(f"seed {seed}: rows are codes {', '.join(map(str, sweep.dims))}")
    click.echo(f"{len(seeds)} traversals (PNG and GIF) in {outdir}")
