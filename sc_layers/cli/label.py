"""`sc-layers label`."""

from __future__ import annotations

import re
from pathlib import Path

import click

from ._common import network_argument


@click.command()
@network_argument
@click.argument("labels", nargs=-1, metavar="[CODE=NAME]...")
def label(network: Path, labels: tuple[str, ...]) -> None:
    """Give codes names, such as 5=smile, which every command shows; CODE= takes a name away. Without any, list them.

    NETWORK is a network file of this package or the folder of a run, of which the newest snapshot is taken. The names
    are kept in the file.
    """
    from ..checkpoints.opening import name_codes

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
