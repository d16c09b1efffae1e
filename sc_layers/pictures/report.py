"""A run in one page: what it learned, how it got there, and how to go on. One file, which asks for nothing else."""

from __future__ import annotations

import base64
import html
import io
import json
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .. import __version__
from .._optional import require
from ..checkpoints.opening import code_names, generator_name, recognizer_of
from ..checkpoints.read import load_network
from ..checkpoints.snapshots import snapshots_in
from ..data import RenderedDataset, open_dataset
from ..files import read_file, read_json_lines, write_file
from ..images import png_bytes, to_network_range
from ..metrics.distances import FeatureDistance
from ..metrics.generators import Sampling
from ..metrics.registry import METRICS
from ..metrics.traversal_length import TraversalLength, tpl_preset, traversal_perceptual_length
from ..models.latents import codes_of_seed, recorded_latents
from ..training.run_dir import CONFIG_FILE, STATS_FILE
from .plots import COLOURS
from .sweeps import sweep_codes

_STYLE = """
:root { color-scheme: light dark; --ink: #222; --paper: #fff; --quiet: #5b5b5b; --line: #ddd; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #181818; --quiet: #a5a5a5; --line: #444; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 68rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.6rem; line-height: 1.25; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; height: auto; background: #fff; } img.pixels { image-rendering: pixelated; width: 100%; }
figure { margin: 1rem 0; } figcaption, .quiet { color: var(--quiet); }
.wide { overflow-x: auto; } .grid { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem .2rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
pre, code { font: 14px/1.5 ui-monospace, monospace; } pre { overflow-x: auto; padding: .7rem;
  border: 1px solid var(--line); }
"""
_SAMPLES = 1000  # images behind the table of codes and factors
_PASS = 100
_SEEDS = (0, 1)
_MOST = 0.95  # of all change


@dataclass(frozen=True)
class _Run:
    """What a run's folder holds."""

    folder: Path
    options: dict[str, Any]
    stats: list[dict[str, Any]]
    metrics: dict[str, list[dict[str, Any]]]

    @classmethod
    def read(cls, folder: Path) -> _Run:
        options = json.loads(bytes(read_file(folder / CONFIG_FILE)))
        if not isinstance(options, dict):
            raise ValueError(f"{folder / CONFIG_FILE} holds no options of a training")
        metrics = {
            path.stem.removeprefix("metric-"): read_json_lines(path) for path in sorted(folder.glob("metric-*.jsonl"))
        }
        return cls(folder, options, read_json_lines(folder / STATS_FILE), metrics)


def _image(data: bytes, text: str, pixels: bool = False) -> str:
    kind = "pixels" if pixels else "drawn"
    encoded = base64.b64encode(data).decode()
    return f'<img class="{kind}" alt="{html.escape(text)}" src="data:image/png;base64,{encoded}">'


def _figure(picture: str, caption: str, wide: bool = False) -> str:
    return f"<figure{' class=wide' if wide else ''}>{picture}<figcaption>{caption}</figcaption></figure>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are HTML already; all but the first column hold numbers."""
    body = "".join(
        "<tr>"
        + "".join(f"<td{' class=number' if index else ''}>{cell}</td>" for index, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><tr>{''.join(f'<th>{cell}</th>' for cell in head)}</tr>{body}</table></div>"


def _plot(draw: Any, title: str, across: str, up: str) -> str:
    """A figure of matplotlib as an image; `draw` gets its axes."""
    figure = require("matplotlib.figure", "metrics").Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots()
    draw(axes)
    axes.set(xlabel=across, ylabel=up, title=title)
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return _image(buffer.getvalue(), title)


def _losses(stats: list[dict[str, Any]]) -> str:
    names = sorted({name for line in stats for name in line if name.startswith("loss/")})

    def draw(axes: Any) -> None:
        for colour, name in zip(COLOURS, names, strict=False):
            points = [(line["kimg"], line[name]) for line in stats if line.get(name) is not None]
            axes.plot(*zip(*points, strict=True), color=colour, label=name.removeprefix("loss/"))

    return (
        _plot(draw, "Losses", "thousands of images", "loss") if names else "<p>No line of statistics was written.</p>"
    )


def _tpl_over_time(run: _Run) -> str:
    plots = []
    for name, lines in run.metrics.items():
        points = [line["results"] for line in lines if name.startswith("tpl") and "interval" in line.get("results", {})]
        if points:

            def draw(axes: Any, points: list[dict[str, Any]] = points, name: str = name) -> None:
                steps = range(1, len(points) + 1)
                low, high = zip(*(point["interval"] for point in points), strict=True)
                axes.fill_between(steps, low, high, color=COLOURS[0], alpha=0.25, label="bootstrap interval")
                axes.plot(steps, [point[name] for point in points], color=COLOURS[0], marker="o", label=name)

            plots.append(_plot(draw, "TPL over time", "snapshot", "length of all active codes"))
    return "".join(plots) or "<p class=quiet>TPL was not measured in training; <code>train --tpl</code> does it.</p>"


def _pictures_over_time(run: _Run) -> str:
    found = sorted(run.folder.glob("fakes*.png"))
    chosen = [found[index] for index in sorted({0, len(found) // 2, len(found) - 1})] if found else []
    shown = [(path, f"generated after {float(path.stem.removeprefix('fakes')):g} thousand images") for path in chosen]
    real = run.folder / "reals.png"
    shown += [(real, "real images")] if real.is_file() else []
    pictures = [_figure(_image(bytes(read_file(path)), text, True), text) for path, text in shown]
    return f"<div class=grid>{''.join(pictures)}</div>"


def _metric_rows(run: _Run) -> list[list[str]]:
    rows = []
    for name, lines in run.metrics.items():
        value = lines[-1].get("results", {}).get(name) if lines else None
        if isinstance(value, (int, float)):
            better = {True: "higher", False: "lower"}.get(METRICS[name].higher_is_better, "") if name in METRICS else ""
            rows.append([html.escape(name), f"{value:.4g}", better])
    return rows


def explained_by(codes: npt.NDArray[np.float64], factor: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The share of each code's variance that a factor explains: 1 where it alone decides, 0 where it has no say.

    The correlation ratio: variance of the means by the factor's values over the whole variance. It also takes factors
    without an order, such as hues and shapes.

    >>> explained_by(np.array([[0.0, 1.0], [0.0, 3.0], [2.0, 1.0], [2.0, 3.0]]), np.array([0, 0, 1, 1])).tolist()
    [1.0, 0.0]

    Args:
        codes: [N, K].
        factor: the factor's value for each of them, [N].

    Returns:
        [K], in [0, 1]; 0 for a code that does not vary.
    """
    centred = codes - codes.mean(0)
    between = np.zeros(codes.shape[1])
    for value in np.unique(factor):
        group = centred[factor == value]
        between += len(group) * group.mean(0) ** 2
    whole = (centred**2).sum(0)
    return np.where(whole > 0, between / np.where(whole > 0, whole, 1), 0)


@torch.no_grad()
def _factors(run: _Run, networks: Mapping[str, Any], device: torch.device) -> str:
    recognizer = recognizer_of(networks)
    data = run.options.get("data")
    dataset = open_dataset(data, run.options.get("resolution")) if data in ("shapes3d", "dsprites", "clevr") else None
    if recognizer is None or not isinstance(dataset, RenderedDataset):
        return "<p class=quiet>The data's factors are not known, or the model reads no codes from images.</p>"
    draws = torch.Generator().manual_seed(0)
    factors = dataset.sample_factors(_SAMPLES, draws)
    images = to_network_range(dataset.images(factors))
    read = torch.cat([recognizer.to(device)(part.to(device)).cpu() for part in images.split(_PASS)])
    codes = read.double().numpy()
    names = code_names(networks["meta"])
    rows = []
    for name, factor in zip(dataset.factor_names, factors.T, strict=True):
        shares = explained_by(codes, factor)
        cells = [f"<b>{share:.2f}</b>" if share >= 0.5 else f"{share:.2f}" for share in shares]
        rows.append([html.escape(name.replace("_", " ")), *cells])
    head = ["factor", *(html.escape(names.get(code, f"code {code}")) for code in range(codes.shape[1]))]
    return (
        "<p>How much of what the recogniser reads as a code is decided by a factor of the image alone, from 0 to 1; "
        f"{_SAMPLES:,} real images.</p>{_table(head, rows)}"
    )


def _shares(tpl: TraversalLength) -> list[float]:
    """How much of all change each code makes, by its traversal perceptual length."""
    whole = float(tpl.per_dim.sum())
    return [float(length) / whole if whole > 0 else 0.0 for length in tpl.per_dim]


def _sheets(
    generator: Any, tpl: TraversalLength, latents: str, networks: Mapping[str, Any], device: torch.device
) -> list[str]:
    names, shares = code_names(networks["meta"]), _shares(tpl)
    labels = [f"{names.get(code, f'code {code}')}\n{shares[code]:.1%} of change" for code in tpl.ranking]
    sheets = []
    for seed in _SEEDS:
        base = codes_of_seed(seed, generator.num_codes, latents)[0]
        sweep = sweep_codes(generator, base.to(device), dims=tpl.ranking)
        sheets.append(_image(png_bytes(sweep.sheet(labels, overlay=True)), f"sweeps around seed {seed}"))
    return sheets


def _summary(run: _Run, generator: Any, tpl: TraversalLength) -> str:
    kimg = run.stats[-1]["kimg"] if run.stats else 0
    shares = sorted(_shares(tpl), reverse=True)
    needed = next((count for count in range(1, len(shares) + 1) if sum(shares[:count]) >= _MOST), 0)
    return (
        f"<p>This generator has {generator.num_codes} codes. Each row sweeps one of them while the others stay: what "
        "changes along a row is what the code means, and <b>mask</b> and <b>where</b> show the place it may act at. "
        f"After {kimg:g} thousand images, <b>{needed} of {generator.num_codes} codes make {_MOST:.0%} of all change"
        "</b>; rows are ordered by their share (traversal perceptual length). A row in which nothing changes is a code "
        "that was not learned.</p>"
    )


def write_report(
    run_dir: str | Path, out: str | Path, distance: FeatureDistance, device: torch.device | str = "cpu"
) -> None:
    """Write a page about a run of this package's trainer.

    Args:
        run_dir: folder of the run.
        out: the HTML file.
        distance: orders the codes by TPL, see `make_distance`.
        device: where to compute.

    Raises:
        FileNotFoundError: no run, or one without a snapshot.
        ValueError: a damaged file.
        ImportError: matplotlib or pillow is missing.
        WriteError: the page can't be written.
    """
    run, device = _Run.read(Path(run_dir)), torch.device(device)
    snapshots = snapshots_in(run.folder)
    if not snapshots:
        raise FileNotFoundError(f"{run.folder} holds no snapshot yet")
    networks = load_network(snapshots[-1])
    generator = networks[generator_name(networks)].to(device)
    latents = recorded_latents(networks["meta"], None)
    settings = tpl_preset("tpl_small_0.3")
    tpl = traversal_perceptual_length(
        generator, settings=settings, distance=distance, sampling=Sampling(latents, device=device)
    )
    write_file(out, _page(run, snapshots[-1], networks, generator, tpl, latents, device).encode())


def _page(
    run: _Run,
    snapshot: Path,
    networks: Mapping[str, Any],
    generator: Any,
    tpl: TraversalLength,
    latents: str,
    device: torch.device,
) -> str:
    first, *others = _sheets(generator, tpl, latents, networks, device)
    folder = html.escape(shlex.quote(str(run.folder)))
    rows = _metric_rows(run)
    settings = html.escape(json.dumps(run.options, indent=2))
    commands = (
        f"sc-layers explore {folder} --distance mse\n"
        f"sc-layers traverse {folder} --order tpl --distance mse --overlay\nsc-layers label {folder} 5=name\n"
        f"sc-layers edit {folder} --sources 1,2 --from 3 --attributes 'a=5'\n"
        f"sc-layers train --resume {folder} --kimg 1000"
    )
    speed = run.stats[-1].get("images_per_second") if run.stats else None
    environment = [
        ["sc-layers", __version__],
        ["PyTorch", str(torch.__version__)],
        ["Python", platform.python_version()],
        ["made on", html.escape(f"{platform.system()} {platform.machine()}")],
        *([["speed at the end", f"{speed:.0f} images/s"]] if isinstance(speed, (int, float)) else []),
    ]
    parts = {
        "What each code does": _summary(run, generator, tpl) + _figure(first, "Sweeps from one random picture", True),
        "Around other pictures": "".join(_figure(sheet, "The same codes, another picture", True) for sheet in others),
        "Codes and factors": _factors(run, networks, device),
        "How it got there": _losses(run.stats) + _tpl_over_time(run) + _pictures_over_time(run),
        "Metrics": _table(["metric", "value", "better"], rows) if rows else "<p class=quiet>None was measured.</p>",
        "Go on": f"<pre>{commands}</pre><p class=quiet>Network: <code>{html.escape(snapshot.name)}</code></p>",
        "Settings": f"<details><summary>All settings</summary><pre>{settings}</pre></details>",
        "Environment": _table(["", ""], environment),
    }
    body = "".join(f"<h2>{title}</h2>{content}" for title, content in parts.items())
    name = html.escape(run.folder.resolve().name)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{name}</title><style>{_STYLE}</style><h1>{name}</h1>{body}</html>\n"
    )
