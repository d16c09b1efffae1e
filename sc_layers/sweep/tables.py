"""The tables of the paper from the runs of a sweep: means over seeds, "+TPL" rows, rank correlations."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints.opening import open_networks
from ..metrics.disentanglement.centrality import Model, model_centrality
from ..metrics.disentanglement.labelled import open_factor_data
from ..metrics.disentanglement.unsupervised import udr
from ..metrics.ranking import Candidate, CorrelationTable, correlation_table
from ..metrics.registry import METRICS, Networks
from ..metrics.table import ARROWS, LATEX_ARROWS, latex_escaped
from ..metrics.traversal_length import TPL_PRESETS
from .grid import Run
from .results import FINISHED, Result

KINDS = {"methods": "method", "lambda": "code-weight", "rects": "rects"}  # by which setting the rows are in order
FORMATS = ("markdown", "csv", "latex")
BEST_SHARE = 1 / 3  # of the seeds, by TPL, make up a "+TPL" row, as in Table 5
UNSUPERVISED = ("pipe",)  # rows of Table 1 besides TPL, as far as they were measured
AGAINST = ("beta_vae", "dci", "factor_vae", "mig")  # the columns of Table 1, as far as they were measured


@dataclass(frozen=True)
class Row:
    """One setting, or its best seeds.

    Attributes:
        setting: the method and the value of each setting that varies.
        results: the runs that finished.
        failed: how many did not.
        selected: these are the best third by TPL.
    """

    setting: Mapping[str, Any]
    results: Sequence[Result]
    failed: int = 0
    selected: bool = False

    @property
    def method(self) -> str:
        """What the row is called."""
        return f"{self.setting['method']}{'+TPL' if self.selected else ''}"

    def values(self, metric: str) -> list[float]:
        """The scores of the runs in `metric`."""
        return [result.scores[metric] for result in self.results if metric in result.scores]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation, of a sample, of which there must be two: nan where there is none.

    Args:
        values: the scores.

    >>> spread([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def tpl_of(results: Iterable[Result]) -> str | None:
    """The TPL preset that all `results` were measured by, or None."""
    measured = [set(result.scores) & set(TPL_PRESETS) for result in results if result.status == FINISHED]
    common = set.intersection(*measured) if measured else set()
    return min(common) if common else None


def _order(value: Any) -> tuple[bool, Any]:
    return (True, value) if isinstance(value, (int, float)) else (False, 0)


def rows_of(results: Sequence[Result], kind: str = "methods") -> list[Row]:
    """A row for each setting, and one for its best third by TPL where at least three seeds have TPL.

    Args:
        results: all runs of a sweep.
        kind: a key of `KINDS`; the rows are in the order of the values of that setting, methods as the grid has them.

    Raises:
        ValueError: an unknown kind, or a sweep in which that setting does not vary.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    key, there = KINDS[kind], list(results[0].setting)
    if any(key not in result.setting for result in results):
        raise ValueError(f"{key} does not vary in this sweep, which has {', '.join(there)}")
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(json.dumps(result.setting), []).append(result)
    plain = []
    for group in groups.values():
        finished = [result for result in group if result.status == FINISHED]
        plain.append(Row(group[0].setting, finished, sum(result.status != FINISHED for result in group)))
    if kind != "methods":
        plain.sort(key=lambda row: _order(row.setting[key]))
    return [row for one in plain for row in [one, *_best(one)]]


def _best(row: Row) -> list[Row]:
    tpl = tpl_of(row.results)
    if tpl is None or len(row.results) < 3:
        return []
    count = math.ceil(len(row.results) * BEST_SHARE)
    ranked = sorted(row.results, key=lambda result: result.scores[tpl])
    return [Row(row.setting, ranked[:count], selected=True)]


def _metrics(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for result in row.results for name in result.scores))


def _shown(values: Sequence[float], plus_minus: str) -> str:
    """The mean to three digits, and the deviation to as many decimals."""
    mean, deviation = spread(values)
    if not math.isfinite(mean):
        return "-" if math.isnan(mean) else str(mean)
    decimals = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2
    shown = f"{mean:.{decimals}f}"
    return shown if math.isnan(deviation) else f"{shown} {plus_minus} {deviation:.{decimals}f}"


def settings_table(rows: Sequence[Row], form: str) -> str:
    """Mean and standard deviation over seeds for each row, as text.

    Args:
        rows: of `rows_of`.
        form: one of `FORMATS`. CSV has mean and standard deviation in columns of their own.

    Raises:
        ValueError: an unknown form.
    """
    metrics, settings = _metrics(rows), [name for name in rows[0].setting if name != "method"]
    begin = [[row.method, *(row.setting[name] for name in settings), len(row.results), row.failed] for row in rows]
    head = ["method", *settings, "runs", "failed"]
    if form == "csv":
        named = [f"{name} {what}" for name in metrics for what in ("mean", "std")]
        numbers = [[number for name in metrics for number in spread(row.values(name))] for row in rows]
        return table([*head, *named], [[*cells, *more] for cells, more in zip(begin, numbers, strict=True)], form)
    arrows, plus_minus = (LATEX_ARROWS, r"$\pm$") if form == "latex" else (ARROWS, "±")
    escape = latex_escaped if form == "latex" else str
    titles = [f"{escape(name)} {arrows[METRICS[name].higher_is_better]}" for name in metrics]
    body = [
        [*(escape(str(cell)) for cell in cells), *(_shown(row.values(name), plus_minus) for name in metrics)]
        for cells, row in zip(begin, rows, strict=True)
    ]
    return table([*map(escape, head), *titles], body, form)


def table(head: Sequence[str], body: Sequence[Sequence[Any]], form: str) -> str:
    """Cells as a table; for LaTeX they are escaped already.

    Args:
        head: titles of the columns.
        body: rows of cells.
        form: one of `FORMATS`.

    Raises:
        ValueError: an unknown form.

    >>> print(table(["method", "mig"], [["PS-SC", 0.5]], "markdown"))
    | method | mig |
    |---|---|
    | PS-SC | 0.5 |
    """
    if form not in FORMATS:
        raise ValueError(f"a table's format must be one of {', '.join(FORMATS)}, got {form!r}")
    if form == "csv":
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([head, *body])
        return text.getvalue().rstrip("\n")
    cells = [list(map(str, row)) for row in (head, *body)]
    if form == "markdown":
        lines = ["| " + " | ".join(row) + " |" for row in cells]
        return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])
    rows = [" & ".join(row) + r" \\" for row in cells]
    columns = "l" + "c" * (len(head) - 1)
    return "\n".join(
        [rf"\begin{{tabular}}{{{columns}}}", r"\hline", rows[0], r"\hline", *rows[1:], r"\hline", r"\end{tabular}"]
    )


def measure_among_seeds(
    results: Sequence[Result],
    outdir: Path,
    udr_images: int | None = None,
    centrality_votes: int | None = None,
    device: str = "cpu",
) -> dict[str, dict[str, float]]:
    """Scores that compare each run with the others of its setting: UDR, on the images that it learned, ModelCentrality.

    Args:
        results: runs of a sweep; settings with one run that finished have no scores.
        outdir: the sweep's folder.
        udr_images: images on which UDR compares codes; None leaves it out.
        centrality_votes: votes for each pair in ModelCentrality, and half as many to judge it; None leaves it out.
        device: where the networks run.

    Returns:
        By the name of the network file below `outdir`, scores by "udr" and "model_centrality".

    Raises:
        ValueError: a network without a recogniser.
    """
    found: dict[str, dict[str, float]] = {}
    for row in rows_of(results):
        if row.selected or len(row.results) < 2:
            continue
        paths = [network_path(result, outdir) for result in row.results]
        networks = [Networks.of(open_networks(path), device) for path in paths]
        models = [Model(one.generator, one.recognizer) for one in networks if one.recognizer is not None]
        if len(models) < len(networks):
            raise ValueError(f"these scores need recognisers, and {row.method!r} has none in {paths[0].parent}")
        scores: dict[str, Any] = {}
        if udr_images is not None:
            images = row.results[0].measure
            data = open_factor_data(images["data"], networks[0].resolution, images.get("bins"), images.get("crop"))
            encoders = [model.encoder for model in models]
            scores["udr"] = udr(encoders, data, num_samples=udr_images, device=device).details["model_scores"]
        if centrality_votes is not None:
            votes = {"num_train": centrality_votes, "num_eval": max(1, centrality_votes // 2)}
            score = model_centrality(models, latents=networks[0].latents, **votes)
            scores["model_centrality"] = score.details["model_scores"]
        for index, path in enumerate(paths):
            found[str(path)] = {name: float(values[index]) for name, values in scores.items()}
    return found


def network_path(result: Result, outdir: Path) -> Path:
    """The network file of a run that finished.

    Args:
        result: the run.
        outdir: the sweep's folder.
    """
    name = Run(result.setting, result.seed, result.train, result.measure).name
    return outdir / name / str(result.network)


def correlations(
    results: Sequence[Result],
    outdir: Path,
    min_active: int = 0,
    among_seeds: Mapping[str, Mapping[str, float]] | None = None,
) -> CorrelationTable:
    """Spearman's rank correlation of TPL, other scores and each supervised metric with the supervised ones (Table 1).

    Args:
        results: runs of a sweep.
        outdir: the sweep's folder.
        min_active: adds a row over the models with at least so many active codes.
        among_seeds: what `measure_among_seeds` returned; the runs without scores are left out of all rows.

    Raises:
        ValueError: the runs have no TPL or no supervised metric in common, or fewer than two finished.

    Source: paper Sec. 4.1, Table 1.
    """
    finished = [result for result in results if result.status == FINISHED]
    tpl = tpl_of(finished)
    measured = [name for name in (*UNSUPERVISED, *AGAINST) if all(name in result.scores for result in finished)]
    against = [name for name in AGAINST if name in measured]
    if tpl is None or not against or len(finished) < 2:
        raise ValueError(
            f"correlations need TPL and one of {', '.join(AGAINST)} of at least 2 runs, got {len(finished)} runs "
            f"with {', '.join(sorted({name for result in finished for name in result.scores})) or 'no score'}"
        )
    candidates = []
    for result in finished:
        name = str(network_path(result, outdir))
        if among_seeds is None or name in among_seeds:
            scores = {**result.scores, **(among_seeds or {}).get(name, {})}
            candidates.append(Candidate(name, result.scores[tpl], result.num_active or 0, scores=scores))
    others = [*next(iter((among_seeds or {}).values()), {}), *measured]
    return correlation_table(candidates, against, (0, min_active) if min_active else (0,), others)


def _ends(value: float | None, interval: tuple[float, float] | None) -> tuple[float | None, ...]:
    return (value, *(interval or (None, None)))


def correlations_table(found: CorrelationTable, form: str) -> str:
    """The correlations as text, with their 95 % intervals.

    Args:
        found: of `correlations`.
        form: one of `FORMATS`. CSV has correlations and the ends of intervals in columns of their own.

    Raises:
        ValueError: an unknown form.
    """
    if form == "csv":
        titles = [f"{name} {what}".rstrip() for name in found.columns for what in ("", "low", "high")]
        rows = [
            [name, count, *(end for one in zip(values, found.intervals[name], strict=True) for end in _ends(*one))]
            for name, (count, values) in found.rows.items()
        ]
        return table(["method", "models", *titles], rows, form)
    escape = latex_escaped if form == "latex" else str
    head = [escape(name) for name in ("method", "models", *found.columns)]
    body = [[escape(name), count, *found.cells(name)] for name, (count, _) in found.rows.items()]
    return table(head, body, form)
