"""`sc-layers explore`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._common import Source, source_options
from .metrics import distance_options, with_options

if TYPE_CHECKING:
    from ..pictures.explorer.scene import Scene


@click.command()
@source_options
@click.argument("network2", type=click.Path(path_type=Path), required=False)
@click.option(
    "--order", type=click.Choice(["index", "tpl"]), default="tpl", help="Sliders stand in this order; tpl measures it."
)
@with_options(distance_options)
@click.option("--host", default="127.0.0.1", help="Listen at this address; the default is reached from here alone.")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="Listen at this port; 0 takes a free one.")
def explore(
    source: Source,
    network2: Path | None,
    order: str,
    distance: str,
    weights: Path | None,
    host: str,
    port: int,
) -> None:
    """Serve a page with a slider for every code, which shows what the code does, and where, until Ctrl+C.

    NETWORK is a network file, the folder of a run, of which the newest snapshot is taken, or a folder of the hub; on
    the page NETWORK2 can be chosen instead. Open the address that is printed: it holds a token, without which nothing
    is served. The page asks no other host.
    """
    from ..metrics import make_distance
    from ..pictures.explorer.server import serve

    measure = make_distance(distance, weights) if order == "tpl" else None
    sources = [dataclasses.replace(source, network=path) for path in (source.network, network2) if path is not None]

    def open_scene(one: Source) -> Scene:
        from ..pictures.explorer.scene import Scene
        from ..pictures.ranking import measure_codes

        opened = one.open()
        if measure is None:
            return Scene(opened, options=_options(one))
        click.echo(f"measuring how far each code of {one.network} moves the picture")
        return Scene(opened, measure_codes(opened, measure), _options(one))

    try:
        serve(lambda: [open_scene(one) for one in sources], host, port, click.echo)
    except KeyboardInterrupt:
        click.echo("stopped")


def _options(source: Source) -> tuple[str, ...]:
    """What another command needs to draw the same pictures, besides seed and truncation."""
    given = (
        ("--latents", source.latents),
        ("--code", source.code),
        ("--class", source.label),
        ("--encoded", source.encoded),
    )
    return tuple(str(word) for option, value in given if value is not None for word in (option, value))
