"""`sc-layers directions`."""

from __future__ import annotations

from pathlib import Path

import click

from ._common import SEED, Integers, code_option, device_option, label_option, network_argument, pick_device

_DROPPED = ("training", "images_seen", "code_names")  # what is kept of other codes


@click.command()
@network_argument
@click.option(
    "--method",
    type=click.Choice(["sefa", "ganspace"]),
    required=True,
    help="SeFa looks at the weights of styles, GANSpace at principal components of samples.",
)
@click.option("--count", type=click.IntRange(1, 4096), default=10, help="Find so many directions.")
@click.option(
    "--rows", type=Integers(), help="Move, and let SeFa look at, these rows of w alone, such as '0-3'.  [default: all]"
)
@click.option("--samples", type=click.IntRange(2, 1_000_000), default=10_000, help="Sample so many w, or features.")
@click.option("--seed", type=SEED, default=0, help="Draws the samples.")
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("directions.safetensors"),
    help="The generator with its directions goes into this file, a .safetensors or .pt.",
)
@code_option
@label_option
@device_option
def directions(
    network: Path,
    method: str,
    count: int,
    rows: list[int] | None,
    samples: int,
    seed: int,
    out: Path,
    code: Path | None,
    label: int | None,
    device: str,
) -> None:
    """Find directions in a trained network by SeFa or GANSpace, and write a network whose codes lie along them.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken; a StyleGAN2 or 3 with
    --code needs no constriction. The file that is written is one for generate, traverse, explore, edit, label, metrics
    and select: its codes are standard deviations along the directions, and the rest of a picture is that of its seed.
    """
    from ..attach import find_directions
    from ..checkpoints import read_contents, write_contents
    from ..checkpoints.opening import DIRECTIONS, open_space
    from ..checkpoints.snapshots import find_snapshot

    path = find_snapshot(network)
    space, name = open_space(path, code, label)
    found = find_directions(space.to(pick_device(device)), method, count, rows, samples, seed)
    contents = read_contents(path)
    meta = {key: value for key, value in contents.meta.items() if key not in _DROPPED}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_contents(out, {name: contents.networks[name]}, {**meta, DIRECTIONS: found.to_dict()})
    click.echo(f"{count} directions of {path} by {method} in {out}")
