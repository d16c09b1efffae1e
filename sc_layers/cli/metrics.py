"""`sc-layers metrics`."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from ._common import Integers, code_option, device_option, label_option, load_generator, network_argument, pick_device

_Command = TypeVar("_Command", bound=Callable[..., Any])

DISTANCES = ("lpips", "lpips-alex", "lpips-squeeze", "efficientnet", "mse")

distance_options = [
    click.option(
        "--distance",
        type=click.Choice(DISTANCES),
        default="lpips",
        help="Perceptual distance; lpips is the paper's (VGG16), efficientnet needs no internet.",
    ),
    click.option("--weights", type=click.Path(path_type=Path), help="File of the distance's weights."),
]
sampling_options = [
    click.option("--seed", type=int, default=0, help="Of every random draw."),
    click.option("--batch", "batch_size", type=click.IntRange(1), default=64, help="Images a pass."),
]
data_options = [
    click.option("--data", help="'shapes3d', 'dsprites', a .npz or .h5 file with factors; for FID and KID any images."),
    click.option("--resolution", type=int, help="Image size of the data.  [default: the network's]"),
    click.option(
        "--features",
        type=click.Choice(["inception", "efficientnet"]),
        default="inception",
        help="Feature network of FID and KID; efficientnet needs no internet.",
    ),
    click.option("--feature-weights", type=click.Path(path_type=Path), help="File of the feature network's weights."),
    click.option(
        "--effort",
        type=float,
        default=1.0,
        help="Factor on the number of samples of all metrics but TPL: less is quicker and noisier.",
    ),
]


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


@metrics.command()
@network_argument
@click.option("--metrics", "names", type=Names(), default="tpl_small_0.3", help="Comma-separated; see the list below.")
@with_options(data_options)
@with_options(distance_options)
@with_options(sampling_options)
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), help="Default: the network's folder.")
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

    Metrics: tpl_small_0.3, tpl_large_0.3, tpl_celeba, tpl_ffhq, tpl_dsprites; ppl, fid, kid with the paper's settings;
    factor_vae, beta_vae, dci, mig, sap, modularity, irs of the recogniser, on data with known factors.

    Each result is also appended to metric-NAME.jsonl, as StyleGAN code bases do. Weights in TorchScript form
    (StyleGAN's vgg16.pt, inception-2015-12-05.pt) run code as they load: only pass files that you trust.
    """
    from ..checkpoints.opening import open_networks
    from ..checkpoints.snapshots import find_snapshot
    from ..metrics import registry
    from ..metrics.report import append_result

    registry.check_names(names)
    if plot is not None and not any(name in registry.TPL_NAMES for name in names):
        raise click.UsageError("--plot shows TPL, and none of the metrics is TPL")
    path = find_snapshot(network)
    networks = registry.Networks.of(open_networks(path, code, label, settings["seed"]), pick_device(device))
    settings["resolution"] = settings["resolution"] or networks.resolution
    measures = registry.prepare(names, progress=not as_json, **settings)
    outdir = path.parent if outdir is None else outdir
    outdir.mkdir(parents=True, exist_ok=True)
    for name in names:
        start = time.perf_counter()
        if name in registry.TPL_NAMES:
            tpl = registry.measure_tpl(name, networks, measures)
            results = {name: tpl.total, **tpl.to_dict()}
            text = f"{name}\n{tpl.table()}"
            if plot is not None:
                tpl.plot(plot)
        else:
            score = registry.measure(name, networks, measures)
            results = {name: score.score, **score.to_dict()}
            text = _text(score.score, name, score.details)
        line = append_result(outdir, name, results, time.perf_counter() - start, path.name)
        click.echo(json.dumps(line) if as_json else text)


def _text(score: float, name: str, details: dict[str, Any]) -> str:
    shown = {key: value for key, value in details.items() if isinstance(value, (int, float))}
    rest = ", ".join(f"{key} {value:.4g}" for key, value in shown.items())
    return f"{name:<14} {score:10.4f}" + (f"  ({rest})" if rest else "")


@metrics.command()
@network_argument
@click.option("--codes", type=Integers(), required=True, help="The two codes, such as '3,7'.")
@click.option("--points", "num_points", type=int, default=9, help="N: the grid has N x N points.")
@click.option("--range", "extent", type=float, default=4.0, help="The grid goes from minus this to this.")
@click.option("--step", type=click.FloatRange(0, 180, min_open=True), default=15.0, help="Degrees between angles.")
@with_options(distance_options)
@with_options(sampling_options)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=Path("rotation.png"), help="Plot.")
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
    **settings: Any,
) -> None:
    """How the distance along two codes grows as they are rotated (Eq. 10, Fig. 3d), from -90 to 180 degrees.

    Interpretable codes have local minima at multiples of 90 degrees.
    """
    from ..metrics import rotation_curve

    if len(codes) != 2:
        raise click.UsageError(f"--codes takes two codes, such as '3,7', got {','.join(map(str, codes))}")
    angles = [-90 + step * i for i in range(int(270 / step + 1e-9) + 1)]
    generator = load_generator(network, pick_device(device), code, label, settings["seed"])
    curve = rotation_curve(generator, (codes[0], codes[1]), angles=angles, progress=not as_json, **settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    curve.plot(out)
    click.echo(json.dumps(curve.to_dict()) if as_json else f"{curve.table()}\nplot in {out}")
