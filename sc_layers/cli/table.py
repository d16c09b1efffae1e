"""`sc-layers table`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ._common import device_option, pick_device

KINDS = ("methods", "lambda", "rects", "correlations")
FORMATS = ("markdown", "csv", "latex")


@click.command()
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="methods",
    help="Rows are in order of the grid's methods, of --code-weight, of --rects, or rank correlations with TPL.",
)
@click.option(
    "--format", "form", type=click.Choice(FORMATS), default="markdown", help="The table is written in this format."
)
@click.option(
    "--min-active",
    type=click.IntRange(0),
    default=0,
    help="A row of correlations takes the models with so many active codes.",
)
@click.option("--udr", "udr_images", type=click.IntRange(10), help="Correlate UDR too, measured on so many images.")
@click.option(
    "--model-centrality",
    "centrality_votes",
    type=click.IntRange(10),
    help="Correlate ModelCentrality too, by so many votes for each pair of seeds.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Means with error bars go into this PNG; with correlations, a metric over the rank by TPL.",
)
@click.option("--plot-metric", default="dci", help="The plot of correlations shows this metric.")
@device_option
def table(
    folder: Path,
    kind: str,
    form: str,
    min_active: int,
    udr_images: int | None,
    centrality_votes: int | None,
    plot: Path | None,
    plot_metric: str,
    device: str,
) -> None:
    """Show what a sweep found: mean and standard deviation over seeds of each setting, or rank correlations.

    FOLDER is the --outdir of `sc-layers sweep`. Rows that end in +TPL are the best third of a setting's seeds by TPL,
    where there are at least three. Failed and unfinished runs are counted beside the others. The deviation is that of a
    sample.
    """
    from ..sweep import load_results
    from ..sweep.tables import correlations, correlations_table, measure_among_seeds, rows_of, settings_table

    if kind != "correlations" and (min_active or udr_images or centrality_votes):
        raise click.UsageError(
            f"--min-active, --udr and --model-centrality go with --kind correlations, got --kind {kind}"
        )
    results = load_results(folder)
    if kind == "correlations":
        among = None
        if udr_images is not None or centrality_votes is not None:
            among = measure_among_seeds(results, folder, udr_images, centrality_votes, str(pick_device(device)))
        click.echo(correlations_table(correlations(results, folder, min_active, among), form))
    else:
        click.echo(settings_table(rows_of(results, kind), form))
    if plot is not None:
        _plot(results, kind, plot, plot_metric)


def _plot(results: list[Any], kind: str, path: Path, metric: str) -> None:
    from ..images import save_figure
    from ..metrics.registry import check_names
    from ..sweep.figures import plot_ranking, plot_settings
    from ..sweep.tables import rows_of

    if path.suffix != ".png":
        raise click.UsageError(f"--plot writes PNG: a name that ends in .png, got {path.name!r}")
    check_names([metric])
    if kind == "correlations":
        figure = plot_ranking(rows_of(results), metric)
    else:
        figure = plot_settings(rows_of(results, kind), kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_figure(figure, path)
    click.echo(f"plot in {path}", err=True)
