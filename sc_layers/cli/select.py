"""`sc-layers select`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ._common import code_option, device_option, label_option, pick_device
from .metrics import Names, data_options, distance_options, measure_settings, sampling_options, with_options


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metric", default="tpl", help="Measure TPL with this preset; 'tpl' is tpl_small_0.3.")
@click.option("--min-active", type=click.IntRange(0), default=0, help="Leave out models with fewer active codes.")
@click.option("--all-snapshots", is_flag=True, help="Take all snapshots of each run, not the newest alone.")
@click.option("--top", type=click.IntRange(1), default=10, help="List so many models.")
@click.option(
    "--against", type=Names(), default="", help="Correlate TPL with these metrics, such as 'factor_vae,dci,mig'."
)
@with_options(data_options)
@with_options(distance_options)
@with_options(sampling_options)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@code_option
@label_option
@device_option
def select(
    runs: tuple[Path, ...],
    metric: str,
    min_active: int,
    top: int,
    against: list[str],
    all_snapshots: bool,
    as_json: bool,
    code: Path | None,
    label: int | None,
    device: str,
    **measuring: Any,
) -> None:
    """Rank the models of many runs by TPL, without labels.

    RUNS are run folders, of which the newest snapshot is taken, and network files. Results are kept in select.jsonl
    beside the checkpoints, so what was measured already is not measured again. To spread the work over processes or
    GPUs: `torchrun --nproc-per-node N -m sc_layers select ...`.

    With --against, Spearman's rank correlations of TPL with those metrics follow, as in Table 1 of the paper.
    """
    from ..metrics import SelectionSettings, select_models

    metric = "tpl_small_0.3" if metric == "tpl" else metric
    selection = select_models(
        runs,
        SelectionSettings(metric, min_active, top, tuple(against), all_snapshots, code, label),
        measure_settings(**measuring),
        device=None if device == "auto" else pick_device(device),
        log=lambda message: click.echo(message, err=True),
    )
    if int(os.environ.get("RANK", "0")) == 0:
        _print(selection, as_json)
    if not selection.ranked:
        raise SystemExit(1)


def _print(selection: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(selection.to_dict()))
        return
    if selection.ranked:
        click.echo(selection.table())
    else:
        click.echo(f"none of {len(selection.candidates)} models has {selection.min_active} active codes", err=True)
    if selection.failures:
        click.echo("could not be measured:", err=True)
    for failure in selection.failures:
        click.echo(f"  {failure.name}: {failure.error}", err=True)
    correlations = selection.correlations()
    if correlations is not None:
        click.echo(f"\nSpearman's rank correlation with\n{correlations}")
