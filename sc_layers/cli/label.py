"""`sc-layers label`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ._common import device_option, network_argument, outdir_option, pick_device
from .metrics import distance_options, with_options


@click.command()
@network_argument
@click.argument("labels", nargs=-1, metavar="[CODE=NAME]...")
@click.option(
    "--suggest", is_flag=True, help="List codes without a name, those first that change most, and draw them in a sheet."
)
@with_options(distance_options)
@outdir_option
@device_option
def label(
    network: Path,
    labels: tuple[str, ...],
    suggest: bool,
    distance: str,
    weights: Path | None,
    outdir: Path,
    device: str,
) -> None:
    """Give codes names, such as 5=smile, which every command shows; CODE= takes a name away. Without any, list them.

    NETWORK is a network file of this package or the folder of a run, of which the newest snapshot is taken. The names
    are kept in the file. With --suggest, unnamed.png in the folder shows what the codes without a name do.
    """
    from ..checkpoints.opening import name_codes

    if suggest and labels:
        raise click.UsageError("--suggest shows codes to name, give the names in another call")
    changes = {}
    for text in labels:
        match = re.fullmatch(r"(\d{1,6})=([^\n]{0,100})", text)
        if match is None:
            raise click.UsageError(f"{text!r:.80} is no label such as '5=smile'")
        changes[int(match[1])] = match[2]
    names = name_codes(network, changes)
    for code, name in names.items():
        click.echo(f"code {code}: {name}")
    if not names:
        click.echo("no code has a name")
    if suggest:
        _suggest(network, (distance, weights), outdir, device)


def _suggest(network: Path, distance: tuple[str, Path | None], outdir: Path, device: str) -> None:
    from ..checkpoints.opening import open_generator
    from ..images import save_png
    from ..metrics import make_distance
    from ..pictures.ranking import code_label, measure_codes
    from ..pictures.sweeps import sweep_codes

    measure = make_distance(*distance)
    opened = open_generator(network, device=pick_device(device))
    tpl = measure_codes(opened, measure)
    unnamed = [code for code in tpl.ranking if code not in opened.names]
    if not unnamed:
        click.echo("every code has a name")
        return
    run, base = opened.at_seed(0)
    labels = [code_label(code, {}, tpl) for code in unnamed]
    sheet = sweep_codes(run, base[0], dims=unnamed).sheet(labels, f"{network.name}, codes without a name", overlay=True)
    outdir.mkdir(parents=True, exist_ok=True)
    save_png(sheet, outdir / "unnamed.png")
    for text in labels:
        click.echo(f"{', '.join(text.splitlines())}: no name")
    click.echo(f"look at {outdir / 'unnamed.png'}, then: sc-layers label {network} {unnamed[0]}=NAME")
