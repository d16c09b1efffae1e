"""Plots of a sweep: means over seeds with their standard deviations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._optional import require
from ..metrics.registry import METRICS
from ..pictures.plots import COLOURS
from .tables import KINDS, Row, spread, tpl_of

_BAR = {"capsize": 3, "markersize": 4, "linewidth": 1}
_MARKERS = "os^Dv"  # another for each round through the colours
_BESIDE = 1.04  # factor between two lines' points


def _styles(rows: Sequence[Row], keys: Sequence[str] = ("method",)) -> dict[tuple[str, ...], dict[str, Any]]:
    """Colour and marker for each method, or each combination of settings under `keys`."""
    found = dict.fromkeys(tuple(str(row.setting[key]) for key in keys) for row in rows)
    return {
        name: {"color": COLOURS[number % len(COLOURS)], "marker": _MARKERS[number // len(COLOURS) % len(_MARKERS)]}
        for number, name in enumerate(found)
    }


def _style(row: Row, styles: dict[tuple[str, ...], dict[str, Any]], keys: Sequence[str] = ("method",)) -> Any:
    """The style of a row; that of the best seeds is hollow and dashed."""
    style = styles[tuple(str(row.setting[key]) for key in keys)]
    return {**style, "markerfacecolor": "white", "linestyle": "--"} if row.selected else style


def _axes(metrics: Sequence[str], width: float, height: float, stacked: bool = False) -> tuple[Any, list[Any]]:
    """A panel of this size in inches for each metric, beside each other, or `stacked` over a common axis."""
    columns, lines = (1, len(metrics)) if stacked else (len(metrics), 1)
    size = (width * columns, height * lines)
    figure = require("matplotlib.figure", "sweep").Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, sharex=stacked, squeeze=False).flatten()
    for one, name in zip(axes, metrics, strict=True):
        one.set_ylabel(f"{name} ({'more' if METRICS[name].higher_is_better else 'less'} is better)")
        one.grid(axis="y", alpha=0.3)
    return figure, list(axes)


def _legend(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize="x-small", frameon=False)


def _label(row: Row) -> str:
    return "\n".join([row.method, *(f"{name} {value}" for name, value in row.setting.items() if name != "method")])


def plot_settings(rows: Sequence[Row], kind: str) -> Any:
    """A panel for each metric: the mean of each row, with one standard deviation over seeds up and down.

    Args:
        rows: of `rows_of`, by the same kind.
        kind: "methods" draws a point for each row; "lambda" and "rects" a line over that setting for each method.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: nothing was measured.
        ImportError: matplotlib is missing.
    """
    metrics = list(dict.fromkeys(name for row in rows for result in row.results for name in result.scores))
    if not metrics:
        raise ValueError("no run of this sweep was measured: there is nothing to draw")
    if kind == "methods":
        return _points(rows, metrics)
    return _lines(rows, metrics, KINDS[kind])


def _bar(axes: Any, places: Sequence[float], values: Sequence[Sequence[float]], **style: Any) -> None:
    spreads = [spread(scores) for scores in values]
    # Of one seed there is no deviation: a point without a bar.
    errors = [0.0 if math.isnan(deviation) else deviation for _, deviation in spreads]
    axes.errorbar(places, [mean for mean, _ in spreads], errors, **_BAR, **style)


def _points(rows: Sequence[Row], metrics: Sequence[str]) -> Any:
    figure, panels = _axes(metrics, max(4.0, 0.4 * len(rows) + 1), 2.4, stacked=True)
    styles = _styles(rows)
    for axes, name in zip(panels, metrics, strict=True):
        for place, row in enumerate(rows):
            _bar(axes, [place], [row.values(name)], **_style(row, styles) | {"linestyle": "none"})
        axes.set_xlim(-0.5, len(rows) - 0.5)
        axes.set_xticks(range(len(rows)), [_label(row) for row in rows], rotation=90, fontsize="x-small")
    return figure


def _lines(rows: Sequence[Row], metrics: Sequence[str], key: str) -> Any:
    figure, panels = _axes(metrics, 3.4, 3.4)
    keys = [name for name in rows[0].setting if name != key]
    styles = _styles(rows, keys)
    series: dict[str, list[Row]] = {}
    for row in rows:
        others = [f"{name} {value}" for name, value in row.setting.items() if name not in ("method", key)]
        series.setdefault(", ".join([row.method, *others]), []).append(row)
    values = sorted({float(row.setting[key]) for row in rows})
    for axes, name in zip(panels, metrics, strict=True):
        for number, (label, line) in enumerate(series.items()):
            beside = _BESIDE ** (number - (len(series) - 1) / 2)  # so that no bar hides another
            places = [float(row.setting[key]) * beside for row in line]
            _bar(axes, places, [row.values(name) for row in line], label=label, **_style(line[0], styles, keys))
        if values[0] > 0:
            axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
        axes.set_xlabel(key)
    _legend(figure, panels[0])
    return figure


def plot_ranking(rows: Sequence[Row], metric: str) -> Any:
    """Settings from the shortest TPL to the longest, and their mean of a metric, with a standard deviation (Fig. 4).

    Args:
        rows: of `rows_of`; those of the best seeds are left out.
        metric: the vertical axis, such as "dci".

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        ValueError: no row has TPL and that metric.
        ImportError: matplotlib is missing.

    Source: paper, Fig. 4.
    """
    plain = [row for row in rows if not row.selected and row.values(metric) and tpl_of(row.results)]
    if not plain:
        raise ValueError(f"no setting of this sweep has TPL and {metric}")
    ranked = sorted(plain, key=lambda row: spread(row.values(str(tpl_of(row.results))))[0])
    figure, (axes,) = _axes([metric], max(4.0, 0.4 * len(ranked) + 1.6), 3.4)
    for (method,), style in _styles(plain).items():
        places = [place for place, row in enumerate(ranked) if row.method == method]
        values = [ranked[place].values(metric) for place in places]
        _bar(axes, [place + 1 for place in places], values, label=method, linestyle="none", **style)
    axes.set_xticks(range(1, len(ranked) + 1))
    axes.set_xlabel("rank by TPL, the shortest first")
    _legend(figure, axes)
    return figure
