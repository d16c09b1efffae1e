"""`sc-layers traverse`."""

from __future__ import annotations

from pathlib import Path

import click

from ._common import (
    Integers,
    at_seed,
    code_option,
    device_option,
    label_option,
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
@click.option("--truncation", type=float, default=1.0, help="Multiplies the seed's codes; psi of other programs' w.")
@code_option
@label_option
@outdir_option
@device_option
def traverse(
    network: Path,
    seeds: list[int],
    points: int,
    bound: float,
    dims: list[int] | None,
    latents: str,
    truncation: float,
    code: Path | None,
    label: int | None,
    outdir: Path,
    device: str,
) -> None:
    """Write a picture in which each row sweeps one code and ends with its mask, and the same as a GIF.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken.
    """
    from ..images import save_gif, save_png
    from ..pictures.sweeps import sweep_codes

    torch_device = pick_device(device)
    generator = load_generator(network, torch_device, code, label)
    for seed in seeds:
        run, base = at_seed(generator, seed, latents, truncation)
        sweep = sweep_codes(run, base[0].to(torch_device), points, bound, dims)
        outdir.mkdir(parents=True, exist_ok=True)
        save_png(sweep.picture(), outdir / f"traverse{seed:04d}.png")
        save_gif(sweep.frames(), outdir / f"traverse{seed:04d}.gif")
        click.echo(f"seed {seed}: rows are codes {', '.join(map(str, sweep.dims))}")
    click.echo(f"a PNG and a GIF of each of {len(seeds)} seeds in {outdir}")
