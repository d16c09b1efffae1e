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
    from ..checkpoints.opening import CODE_NAMES, code_names
    from ..checkpoints.read import read_contents
    from ..checkpoints.snapshots import find_snapshot
    from ..checkpoints.write import write_contents

    path = find_snapshot(network)
    contents = read_contents(path)
    names = code_names(contents.meta)
    for text in labels:
        match = re.fullmatch(r"(\d{1,6})=([^\n]{0,100})", text)
        if match is None:
            raise click.UsageError(f"{text!r:.80} is no label such as '5=smile'")
        names.pop(int(match[1]), None)
        if match[2]:
            names[int(match[1])] = match[2]
    if labels:
        if not contents.format.startswith("sc-layers"):
            raise click.UsageError(
                f"no names are kept in {path}, {contents.format}: convert it first (sc-layers convert)"
            )
        kept = {str(code): name for code, name in sorted(names.items())}
        write_contents(path, contents.networks, {**contents.meta, CODE_NAMES: kept})
    for code, name in sorted(names.items()):
        click.echo(f"code {code}: {name}")
    if not names:
        click.echo("no code has a name")
