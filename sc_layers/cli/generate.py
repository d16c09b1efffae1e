"""`sc-layers generate`."""

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
@click.option("--seeds", type=Integers(), default="0-15", help="One picture each.")
@click.option("--latents", type=click.Choice(["normal", "uniform"]), default="normal", help="How codes are drawn.")
@click.option("--truncation", type=float, default=1.0, help="Multiplies the codes.")
@click.option("--noise", type=click.Choice(["const", "random", "none"]), default="const", help="Of Noise modules.")
@outdir_option
@device_option
def generate(
    network: Path, seeds: list[int], latents: str, truncation: float, noise: str, outdir: Path, device: str
) -> None:
    """Write one picture for each seed, and a grid of them all.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken.
    """
    import torch

    from ..images import image_grid, save_png, to_uint8

    torch_device = pick_device(device)
    generator = load_generator(network, torch_device)
    codes = codes_of_seeds(seeds, generator.num_codes, latents).to(torch_device) * truncation
    outdir.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        images = torch.cat([to_uint8(generator(code, noise_mode=noise)) for code in codes.split(16)]).cpu()
    for seed, image in zip(seeds, images, strict=True):
        save_png(image, outdir / f"seed{seed:04d}.png")
    columns = max(c for c in range(1, min(8, len(seeds)) + 1) if len(seeds) % c == 0)
    save_png(image_grid(images, columns, outline=False), outdir / "grid.png")
    click.echo(f"{len(seeds)} pictures and grid.png in {outdir}")
