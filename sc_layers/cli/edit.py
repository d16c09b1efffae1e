"""`sc-layers edit`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import click

from ._common import Drawing, Integers, drawing_options


class Attributes(click.ParamType["dict[str, list[int] | None]"]):
    """Attributes and their codes, such as `hair=19,smile=5+7`; a name alone is looked up in the file."""

    name = "attributes"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> dict[str, list[int] | None]:
        """Codes by name in `value`, None for a name alone; click passes `param` and `ctx` for its usage errors."""
        if isinstance(value, dict):
            return value
        found: dict[str, list[int] | None] = {}
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*([^=+\s][^=+]{0,60}?)\s*(?:=\s*(\d{1,6}(?:\+\d{1,6})*)\s*)?", part)
            if match is None:
                self.fail(f"{part!r} is no attribute such as 'hair=19' or 'smile=5+7'", param, ctx)
            found[match[1]] = [int(code) for code in match[2].split("+")] if match[2] else None
        return found


@click.command()
@click.option("--sources", type=Integers(), default="0-3", help="Edit the pictures of these seeds.")
@click.option("--from", "targets", type=Integers(), help="Attributes come from the pictures of these seeds.")
@click.option("--attributes", type=Attributes(), help="Take these over, such as 'hair=19,smile=5+7'; names may do.")
@click.option("--flip", type=Integers(), help="Turn the signs of these codes instead, one a column.")
@drawing_options
def edit(
    drawing: Drawing,
    sources: list[int],
    targets: list[int] | None,
    attributes: dict[str, list[int] | None] | None,
    flip: list[int] | None,
) -> None:
    """Draw pictures with attributes of others (--from, --attributes), or with codes flipped (--flip), as edit.png.

    NETWORK is a network file, the folder of a run, of which the newest snapshot is taken, or a folder of the hub.
    """
    from ..images import save_png
    from ..pictures.edits import flip_sheet, transfer_sheet

    if flip is None and (targets is None or attributes is None):
        raise click.UsageError("give --from and --attributes, or --flip")
    if flip is not None and (targets is not None or attributes is not None):
        raise click.UsageError("--flip excludes --from and --attributes")
    opened = drawing.open()
    seeded = {opened.name_of(seed): opened.at_seed(seed) for seed in sources}
    if flip is not None:
        sheet = flip_sheet(seeded, flip, opened.names, drawing.network.name)
    else:
        chosen = _resolved(attributes or {}, opened.names)
        givers = {opened.name_of(seed): opened.at_seed(seed) for seed in targets or ()}
        sheet = transfer_sheet(seeded, givers, chosen, drawing.network.name)
    drawing.outdir.mkdir(parents=True, exist_ok=True)
    save_png(sheet, drawing.outdir / "edit.png")
    click.echo(f"edit.png in {drawing.outdir}")


def _resolved(attributes: Mapping[str, list[int] | None], names: Mapping[int, str]) -> dict[str, list[int]]:
    """Codes by the attribute's name, those without codes looked up among the names in the file."""
    found = {}
    for name, codes in attributes.items():
        found[name] = [code for code, known in names.items() if known == name] if codes is None else codes
        if not found[name]:
            known = ", ".join(sorted(set(names.values()))) or "none"
            raise click.UsageError(f"no code is called {name!r}, known are: {known}; give its codes, as in '{name}=5'")
    return found
