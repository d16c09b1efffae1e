"""`sc-layers convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

_EXPORTS = (".onnx", ".pt2")


@click.command()
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@click.option(
    "--network", type=click.Choice(["G", "G_ema"]), default="G_ema", help="A .onnx, .pt2 or folder gets this network."
)
@click.option("--masks", is_flag=True, help="The .onnx or .pt2 program also returns the masks.")
@click.option(
    "--noise",
    type=click.Choice(["const", "none"]),
    default="const",
    help="Noise modules of the .onnx or .pt2 program add this.",
)
def convert(source: Path, target: Path, network: str, masks: bool, noise: Any) -> None:
    """Write the networks of a file in another format, safely.

    IN is any file or folder that `sc-layers inspect` knows; the folder of OUT is made where it is missing. The
    extension of OUT names the format: .safetensors, .pt, .pkl in the style of dnnlib, .onnx, .pt2 (torch.export), or
    none for a folder as the Hugging Face hub has it.
    """
    from ..checkpoints import read_contents, write_contents
    from ..checkpoints.snapshots import SUFFIXES, find_snapshot

    if target.suffix not in ("", *_EXPORTS, *SUFFIXES):
        known = ", ".join((*SUFFIXES, *_EXPORTS))
        raise click.UsageError(f"the extension must be one of {known}, or none for a folder, got {target.name!r:.80}")
    source = find_snapshot(source)
    if target.suffix and target.suffix not in _EXPORTS:
        contents = read_contents(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_contents(target, contents.networks, contents.meta)
        click.echo(f"{', '.join(contents.networks)} from {contents.format} to {target}")
        return
    generator = _generator_of(source, network)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.suffix:
        from ..checkpoints.hub import save_pretrained

        save_pretrained(generator, target)
    else:
        from ..checkpoints.export import save_onnx, save_pt2, to_program

        program = to_program(generator, noise, masks)
        (save_onnx if target.suffix == ".onnx" else save_pt2)(program, target)
    click.echo(f"{network} to {target}")


def _generator_of(source: Path, name: str) -> Any:
    from ..checkpoints import load_network
    from ..checkpoints.opening import DIRECTIONS
    from ..checkpoints.snapshots import SUFFIXES
    from ..models import Generator

    networks = load_network(source, impl="reference")
    if networks["meta"].get(DIRECTIONS) is not None:
        raise click.UsageError(f"{source} has directions, which only {', '.join(SUFFIXES)} can keep")
    if not isinstance(networks.get(name), Generator):
        found = ", ".join(key for key in networks if key != "meta")
        raise click.UsageError(f"{source} holds no generator {name} of ours, only: {found}")
    return networks[name]
