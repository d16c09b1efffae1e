"""`sc-layers report`."""

from __future__ import annotations

from pathlib import Path

import click

from ._common import device_option, pick_device
from .metrics import DISTANCES


@click.command()
@click.argument("run_dir", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page goes into this file.  [default: RUN_DIR/report.html]",
)
@click.option(
    "--distance",
    type=click.Choice(DISTANCES),
    default="mse",
    help="Codes are ordered by TPL of this distance; lpips is the paper's, mse needs no weights.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="The distance's weights lie in this file.")
@device_option
def report(run_dir: Path, out: Path | None, distance: str, weights: Path | None, device: str) -> None:
    """Write one HTML file about a run: what each code does, losses, pictures, metrics, settings.

    The file holds all that it shows, and asks no other host.
    """
    from ..metrics import make_distance
    from ..pictures.report import write_report

    out = out or run_dir / "report.html"
    write_report(run_dir, out, make_distance(distance, weights), pick_device(device))
    click.echo(f"look at {out}")
