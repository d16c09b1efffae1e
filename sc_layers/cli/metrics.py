"""`sc-layers metrics`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ._common import (
    LARGEST_BATCH,
    POINTS,
    RESOLUTION,
    SEED,
    Finite,
    Integers,
    code_option,
    device_option,
    label_option,
    network_argument,
    pick_device,
)

if TYPE_CHECKING:
    from ..metrics import MeasureSettings
    from ..metrics.score import Score

_Command = TypeVar("_Command", bound=Callable[..., Any])

DISTANCES = ("lpips", "lpips-alex", "lpips-squeeze", "efficientnet", "mse")

distance_options = [
    click.option(
        "--distance",
        type=click.Choice(DISTANCES),
        default="lpips",
        help="Images are compared by this; lpips is the paper's (VGG16), efficientnet needs no internet.",
    ),
    click.option("--weights", type=click.Path(path_type=Path), help="The distance's weights lie in this file."),
]
sampling_options = [
    click.option("--seed", type=SEED, default=0, help="Fixes every random draw."),
    click.option(
        "--batch",
        "batch_size",
        type=click.IntRange(1, LARGEST_BATCH),
        default=64,
        help="So many images go through the networks at a time.",
    ),
]
latents_option = click.option(
    "--latents",
    type=click.Choice(["normal", "uniform"]),
    help="Codes are drawn from this distribution.  [default: as the file records]",
)
feature_options = [
    click.option(
        "--features",
        type=click.Choice(["inception", "efficientnet"]),
        default="inception",
        help="FID and KID compare the features of this network; efficientnet needs no internet.",
    ),
    click.option(
        "--feature-weights", type=click.Path(path_type=Path), help="The feature network's weights lie in this file."
    ),
    click.option(
        "--num-images",
        type=click.IntRange(2),
        default=2_000,
        help="FID and KID take so many images, PPL so many pairs.",
        show_default=True,
    ),
]
data_options = [
    click.option(
        "--data",
        help="Compare with 'shapes3d', 'dsprites', a .npz or .h5 file or images with labels; FID takes any images.",
    ),
    click.option(
        "--resolution", type=RESOLUTION, help="The data's images get this height and width.  [default: the network's]"
    ),
    click.option("--crop", type=click.Choice(["celeba"]), help="Crop aligned CelebA images to 128x128 faces."),
    click.option(
        "--attributes",
        type=click.Path(path_type=Path),
        help="The images' attributes stand in this table: a CSV file or CelebA's list_attr_celeba.txt.",
    ),
    click.option("--bins", type=click.IntRange(2), help="Cut continuous factors into so many bins."),
    *feature_options,
    click.option(
        "--full", is_flag=True, help="Take the standard instead: 50,000 images or pairs, and all real images."
    ),
    click.option(
        "--effort",
        type=Finite(),
        default=1.0,
        help="Multiplies the number of samples of pipe and of metrics of labelled images: less is quicker and noisier.",
    ),
    latents_option,
]


def measure_settings(full: bool, num_images: int, **settings: Any) -> MeasureSettings:
    """What the options of this module say about measuring: `full` overrides `num_images`; `settings` are the rest."""
    from ..metrics import MeasureSettings

    return MeasureSettings(num_images=None if full else num_images, **settings)


def with_options(options: list[Callable[[_Command], _Command]]) -> Callable[[_Command], _Command]:
    """Add a list of options to a command, in their order."""

    def decorate(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Names(click.ParamType[list[str]]):
    """Names separated by commas."""

    name = "names"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        return value if isinstance(value, list) else [part.strip() for part in str(value).split(",") if part.strip()]


class _NetworkFirst(click.Group):
    """Runs `measure` where the first word is no command, so that `metrics NETWORK ...` works."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["measure", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_NetworkFirst)
def metrics() -> None:
    """Measure a network: `metrics NETWORK ...` is short for `metrics measure NETWORK ...`."""


@metrics.command(short_help="Measure a network, or the newest snapshot of a run.")
@network_argument
@click.option(
    "--metrics",
    "names",
    type=Names(),
    default="tpl_small_0.3",
    help="Measure these, separated by commas; see the list below.",
)
@with_options(data_options)
@with_options(distance_options)
@with_options(sampling_options)
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Results go into this folder.  [default: the network's]",
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Write TPL's bar plot to this file.")
@click.option("--json", "as_json", is_flag=True, help="Print lines of JSON instead of a table.")
@code_option
@label_option
@device_option
def measure(
    network: Path,
    names: list[str],
    outdir: Path | None,
    plot: Path | None,
    as_json: bool,
    code: Path | None,
    label: int | None,
    device: str,
    **settings: Any,
) -> None:
    """Measure a network file, or the newest snapshot of a run's folder.

    Metrics: tpl_small_0.3, tpl_large_0.3, tpl_celeba, tpl_ffhq, tpl_dsprites; ppl, fid, kid; pipe, of generator and
    recogniser; and of the recogniser, on images with known factors: factor_vae, beta_vae, dci, mig, sap, modularity,
    irs, infomec, dci_es.

    Each result is appended to metric-NAME.jsonl, as StyleGAN code bases do; metrics-NETWORK.json, .csv and .tex hold
    all of this call. The features of real images are kept in a cache. Weights in TorchScript form (StyleGAN's vgg16.pt,
    inception-2015-12-05.pt) run code as they load: only pass files that you trust.
    """
    from ..checkpoints.opening import open_networks
    from ..checkpoints.snapshots import find_snapshot
    from ..metrics import registry
    from ..metrics.table import append_result
    from ..metrics.traversal_length import TPL_PRESETS

    registry.check_names(names)
    if plot is not None and not any(name in TPL_PRESETS for name in names):
        raise click.UsageError("--plot shows TPL, and none of the metrics is TPL")
    path = find_snapshot(network)
    loaded = open_networks(path, code, label, settings["seed"])
    networks = registry.Networks.of(loaded, pick_device(device), settings["latents"])
    settings["resolution"] = settings["resolution"] or networks.resolution
    measures = registry.prepare(names, measure_settings(progress=not as_json, **settings))
    outdir = path.parent if outdir is None else outdir
    outdir.mkdir(parents=True, exist_ok=True)
    scores = []
    for name in names:
        start = time.perf_counter()
        if name in TPL_PRESETS:
            tpl = registry.measure_tpl(name, networks, measures)
            score = registry.tpl_score(name, tpl)
            if not as_json:
                click.echo(f"{name}\n{tpl.table()}\n")
            if plot is not None:
                tpl.plot(plot)
        else:
            score = registry.measure(name, networks, measures)
        seconds = time.perf_counter() - start
        line = append_result(outdir, name, {name: score.score, **score.to_dict()}, seconds, path.name)
        scores.append(score)
        if as_json:
            click.echo(json.dumps(line))
    _write(outdir, path.stem, scores, as_json)


def _write(outdir: Path, name: str, scores: list[Score], as_json: bool) -> None:
    """Print the table, and write the files of all scores."""
    from ..files import write_file
    from ..metrics import registry, table

    higher = {name: metric.higher_is_better for name, metric in registry.METRICS.items()}
    if not as_json:
        click.echo(table.score_table(scores, higher, _arrows()))
    table.write_json(outdir / f"metrics-{name}.json", scores)
    table.write_csv(outdir / f"metrics-{name}.csv", scores, higher)
    write_file(outdir / f"metrics-{name}.tex", (table.latex_row(name, scores, higher) + "\n").encode())


def _arrows() -> dict[bool, str]:
    """Arrows where the terminal can show them, and words where it can't."""
    from ..metrics import table

    try:
        "".join(table.ARROWS.values()).encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return table.WORDS
    return table.ARROWS


@metrics.command(short_help="Measure how far images move along two codes as these are rotated.")
@network_argument
@click.option("--codes", type=Integers(), required=True, help="Rotate these two codes, such as '3,7'.")
@click.option("--points", "num_points", type=POINTS, default=9, help="The grid has so many points along each code.")
@click.option(
    "--range", "extent", type=Finite(0, min_open=True), default=4.0, help="The grid goes from minus this to this."
)
@click.option("--step", type=Finite(0.1, 180), default=15.0, help="Angles lie so many degrees apart.")
@with_options(distance_options)
@with_options(sampling_options)
@latents_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("rotation.png"),
    help="The plot goes into this file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@code_option
@label_option
@device_option
def rotation(
    network: Path,
    codes: list[int],
    step: float,
    out: Path,
    as_json: bool,
    code: Path | None,
    label: int | None,
    device: str,
    distance: str,
    weights: Path | None,
    latents: str | None,
    seed: int,
    batch_size: int,
    **grid: Any,
) -> None:
    """Measure how the distance along two codes grows as they are rotated from -90 to 180 degrees: Eq. 10, Fig. 3d.

    Interpretable codes have local minima at multiples of 90 degrees.
    """
    from ..checkpoints.opening import open_networks
    from ..checkpoints.snapshots import find_snapshot
    from ..metrics import make_distance, registry, rotation_curve

    if len(codes) != 2:
        raise click.UsageError(f"--codes takes two codes, such as '3,7', got {','.join(map(str, codes))}")
    angles = [-90 + step * i for i in range(int(270 / step + 1e-9) + 1)]
    loaded = open_networks(find_snapshot(network), code, label, seed)
    networks = registry.Networks.of(loaded, pick_device(device), latents)
    measuring = registry.MeasureSettings(seed=seed, batch_size=batch_size, progress=not as_json)
    curve = rotation_curve(
        networks.generator,
        (codes[0], codes[1]),
        angles=angles,
        distance=make_distance(distance, weights),
        sampling=registry.Measures(measuring).sampling(networks),
        **grid,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    curve.plot(out)
    click.echo(json.dumps(curve.to_dict()) if as_json else f"{curve.table()}\nplot in {out}")
