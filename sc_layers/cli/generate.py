"""`sc-layers generate`."""

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
@click.option("--seeds", type=Integers(), default="0-15", help="One picture each.")
@click.option("--latents", type=click.Choice(["normal", "uniform"]), default="normal", help="How codes are drawn.")
@click.option("--truncation", type=float, default=1.0, help="Multiplies codes; psi of other programs' w.")
@click.option("--noise", type=click.Choice(["const", "random", "none"]), default="const", help="Of Noise modules.")
@code_option
@label_option
@outdir_option
@device_option
def generate(
    network: Path,
    seeds: list[int],
    latents: str,
    truncation: float,
    noise: str,
    code: Path | None,
    label: int | None,
    outdir: Path,
    device: str,
) -> None:
    """Write one picture for each seed, and a grid of them all.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken.
    """
    import torch

    from ..images import check_images, image_grid, save_png, to_uint8

    torch_device = pick_device(device)
    generator = load_generator(network, torch_device, code, label)
    pictures = [at_seed(generator, seed, latents, truncation) for seed in seeds]
    outdir.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        made = torch.cat([run(codes.to(torch_device), noise_mode=noise).cpu() for run, codes in pictures])
    images = to_uint8(check_images(made, torch.cat([codes for _, codes in pictures])))
    for seed, image in zip(seeds, images, strict=True):
        save_png(image, outdir / f"seed{seed:04d}.png")
    columns = max(c for c in range(1, min(8, len(seeds)) + 1) if len(seeds) % c == 0)
    save_png(image_grid(images, columns, outline=False), outdir / "grid.png")
    click.echo(f"{len(seeds)} pictures and grid.png in {outdir}")
