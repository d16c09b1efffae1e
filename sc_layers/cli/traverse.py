"""`sc-layers traverse`."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._common import MOST_NUMBERS, POINTS, Drawing, Finite, Integers, drawing_options
from .metrics import distance_options, with_options

if TYPE_CHECKING:
    from torch import Tensor

    from ..checkpoints.opening import Opened


class Codes(click.ParamType["list[int] | int | None"]):
    """Codes by number, `topN` for the N with the longest sweeps, or `all`."""

    name = "codes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[int] | int | None:
        """Numbers, N of `topN`, or None for all, from `value`; click passes `param` and `ctx` for its usage errors."""
        if value == "all":
            return None
        if match := re.fullmatch(r"top(\d{1,6})", str(value)):
            if not 1 <= int(match[1]) <= MOST_NUMBERS:
                self.fail(f"{value!r} names no code", param, ctx)
            return int(match[1])
        return Integers().convert(value, param, ctx)


class Range(click.ParamType["tuple[float, float]"]):
    """Two numbers such as `-2,1`, or one: from minus it to it."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """The two ends in the text `value`; click passes `param` and `ctx` for its usage errors."""
        if isinstance(value, tuple):
            return value
        ends = [Finite().convert(part, param, ctx) for part in str(value).split(",")]
        if len(ends) == 1:
            return -ends[0], ends[0]
        if len(ends) != 2:
            self.fail(f"{value!r} is neither one number nor two such as '-2,2'", param, ctx)
        return ends[0], ends[1]


@click.command()
@click.option("--seeds", type=Integers(), default="0", help="One traversal is drawn for each, around its codes.")
@click.option("--points", type=POINTS, default=7, help="A row has so many pictures.")
@click.option("--range", "bound", type=Range(), default="-2,2", help="Each code sweeps from the first to the second.")
@click.option(
    "--codes", type=Codes(), default="all", help="Sweep these codes, such as '0-3,7', or 'top10' by TPL, or all."
)
@click.option(
    "--order", type=click.Choice(["index", "tpl"]), default="index", help="Rows stand in this order; tpl measures it."
)
@click.option("--overlay", is_flag=True, help="Add a column in which orange shows on the image where the mask is open.")
@click.option(
    "--compare", type=click.Path(path_type=Path), help="Draw this network beside the first, with the same seeds."
)
@click.option("--mp4", is_flag=True, help="Write the sweeps as a film too, four times to and fro.")
@with_options(distance_options)
@drawing_options
def traverse(
    drawing: Drawing,
    seeds: list[int],
    points: int,
    bound: tuple[float, float],
    codes: list[int] | int | None,
    order: str,
    overlay: bool,
    compare: Path | None,
    mp4: bool,
    distance: str,
    weights: Path | None,
) -> None:
    """Write a sheet in which each row sweeps one code and ends with its mask, and the sweeps as a GIF.

    NETWORK is a network file or the folder of a run, of which the newest snapshot is taken. Rows are labelled with the
    code, the name that `sc-layers label` gave it, and, where --order tpl or --codes topN measure it, its traversal
    perceptual length with the standard error of the mean. Masks have one scale for all codes.
    """
    from ..images import save_gif, save_mp4, save_png
    from ..pictures.sheet import beside

    networks = [drawing] if compare is None else [drawing, replace(drawing, network=compare)]
    views = [_View(one, one.open(), codes, order, (distance, weights)) for one in networks]
    for seed in seeds:
        sheets, frames = zip(*(view.draw(seed, points, bound, overlay) for view in views), strict=True)
        drawing.outdir.mkdir(parents=True, exist_ok=True)
        save_png(beside(sheets), drawing.outdir / f"traverse{seed:04d}.png")
        film = [beside(moment) for moment in zip(*frames, strict=True)]
        save_gif(film, drawing.outdir / f"traverse{seed:04d}.gif")
        if mp4:
            save_mp4(film, drawing.outdir / f"traverse{seed:04d}.mp4")
    click.echo(f"a PNG and a GIF of each of {len(seeds)} seeds in {drawing.outdir}")


class _View:
    """A network to draw: which codes, in which order, under which labels."""

    def __init__(
        self,
        drawing: Drawing,
        opened: Opened,
        codes: list[int] | int | None,
        order: str,
        distance: tuple[str, Path | None],
    ) -> None:
        self.drawing, self.opened = drawing, opened
        from ..metrics import make_distance
        from ..pictures.ranking import measure_codes

        measured = order == "tpl" or isinstance(codes, int)
        self.tpl = measure_codes(opened, make_distance(*distance)) if measured else None
        ranking = self.tpl.ranking if self.tpl is not None else list(range(opened.generator.num_codes))
        some = codes if isinstance(codes, list) else ranking
        chosen = ranking[:codes] if isinstance(codes, int) else some
        self.codes = [code for code in ranking if code in chosen] if order == "tpl" else chosen

    def draw(self, seed: int, points: int, bound: tuple[float, float], overlay: bool) -> tuple[Tensor, list[Tensor]]:
        """The sheet of a seed, and the frames of the sweeps."""
        from ..pictures.ranking import code_label
        from ..pictures.sweeps import sweep_codes

        run, base = self.opened.at_seed(seed)
        sweep = sweep_codes(run, base[0], points, bound, self.codes)
        title = f"{self.drawing.network.name}, {self.opened.name_of(seed)}"
        labels = [code_label(code, self.opened.names, self.tpl) for code in self.codes]
        return sweep.sheet(labels, title, overlay), sweep.frames()
