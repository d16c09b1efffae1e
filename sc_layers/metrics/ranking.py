"""Ranking models by TPL, and how the ranking agrees with other metrics (paper, Sec. 4.1 and Table 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._optional import require

_LEVEL = 0.95  # of intervals
_RESAMPLES = 2_000
_FEWEST = 4  # models that an interval is given for


@dataclass(frozen=True)
class Candidate:
    """A model and what was measured of it.

    Attributes:
        name: what the table calls it, such as the path of its checkpoint.
        tpl: total TPL; less is better.
        num_active: codes at or above the threshold of TPL.
        interval: bootstrap interval of the total, if there is one.
        scores: other metrics by name.
        info: anything else worth keeping.
    """

    name: str
    tpl: float
    num_active: int
    interval: tuple[float, float] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "tpl": self.tpl,
            "num_active": self.num_active,
            "interval": None if self.interval is None else list(self.interval),
            "scores": dict(self.scores),
            **self.info,
        }


def rank_candidates(candidates: Sequence[Candidate], min_active: int = 0, top: int | None = None) -> list[Candidate]:
    """Candidates with at least `min_active` active codes, the smallest TPL first.

    The filter takes out models that have a short TPL because they encode only some of the factors.

    Args:
        candidates: any number.
        min_active: least number of active codes; the paper's "act > 4" is 5.
        top: keep so many; None keeps all.

    Raises:
        ValueError: a negative `min_active`, or `top` below 1.

    >>> models = [Candidate("a", 3.0, 5), Candidate("b", 1.0, 2), Candidate("c", 2.0, 6)]
    >>> [model.name for model in rank_candidates(models, min_active=5)]
    ['c', 'a']
    """
    if min_active < 0:
        raise ValueError(f"min_active must not be negative, got {min_active}")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    kept = [candidate for candidate in candidates if candidate.num_active >= min_active]
    return sorted(kept, key=lambda candidate: candidate.tpl)[:top]


def spearman(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Spearman's rank correlation of `first` and `second`, by scipy.

    Returns:
        A number in -1..1, or None where there is none: fewer than two values, or a side without two different ones.

    Raises:
        ValueError: the sides are not equally long.
    """
    if len(first) != len(second):
        raise ValueError(f"rank correlation needs as many values on both sides, got {len(first)} and {len(second)}")
    if len(set(first)) < 2 or len(set(second)) < 2:
        return None
    value = float(require("scipy.stats", "metrics").spearmanr(first, second).statistic)
    return value if math.isfinite(value) else None


def spearman_interval(first: Sequence[float], second: Sequence[float]) -> tuple[float, float] | None:
    """How far Spearman's rank correlation of `first` and `second` may be off: for models drawn anew, 95 % of the time.

    Returns:
        The bootstrap's percentiles, the same ones each time, or None for fewer than four values or a constant side.

    Raises:
        ValueError: the sides are not equally long.
    """
    if spearman(first, second) is None or len(first) < _FEWEST:
        return None
    drawn = np.random.default_rng(0).integers(len(first), size=(_RESAMPLES, len(first)))
    rankdata = require("scipy.stats", "metrics").rankdata
    ranks = [rankdata(np.asarray(side)[drawn], axis=1) for side in (first, second)]
    a, b = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    norms = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    values = (a * b).sum(axis=1)[norms > 0] / norms[norms > 0]
    low, high = np.quantile(values, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class CorrelationTable:
    """Rank correlations of unsupervised and supervised scores, as in Table 1 of the paper.

    Attributes:
        columns: the supervised metrics.
        rows: the number of models and a correlation for each column (None where there is none), by the method's name.
        intervals: the `spearman_interval` of each correlation.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[int, tuple[float | None, ...]]]
    intervals: Mapping[str, tuple[tuple[float, float] | None, ...]]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            name: {
                "models": num,
                **dict(zip(self.columns, values, strict=True)),
                "intervals": dict(zip(self.columns, self.intervals[name], strict=True)),
            }
            for name, (num, values) in self.rows.items()
        }

    def cells(self, name: str) -> list[str]:
        """The correlations of the row `name` as text, with their intervals; "-" stands where there is none."""
        _, values = self.rows[name]
        shown = ["-" if value is None else f"{value:.2f}" for value in values]
        return [
            text if interval is None else f"{text} [{interval[0]:.2f}, {interval[1]:.2f}]"
            for text, interval in zip(shown, self.intervals[name], strict=True)
        ]

    def table(self) -> str:
        """As text, see `cells`."""
        width = max(len("method"), *map(len, self.rows)) + 1
        lines = [f"{'method':<{width}}{'models':>7}" + "".join(f"{name:>22}" for name in self.columns)]
        for name, (num, _) in self.rows.items():
            lines.append(f"{name:<{width}}{num:>7}" + "".join(f"{cell:>22}" for cell in self.cells(name)))
        return "\n".join(lines)

    __str__ = table


def correlation_table(
    candidates: Sequence[Candidate],
    against: Sequence[str],
    min_actives: Sequence[int] = (0,),
    others: Sequence[str] = (),
) -> CorrelationTable:
    """Spearman's rank correlation of TPL with supervised metrics (Table 1). TPL enters with its sign turned.

    Args:
        candidates: models whose `scores` have all metrics that are named.
        against: the supervised metrics, one a column.
        min_actives: one row of TPL each, over the models with at least so many active codes.
        others: further scores, one row each over all models: UDR, or a supervised metric as an upper bound.

    Raises:
        ValueError: a candidate lacks a score.
    """
    for candidate in candidates:
        missing = [name for name in (*against, *others) if name not in candidate.scores]
        if missing:
            raise ValueError(f"{candidate.name} has no score {missing[0]!r}; it has {', '.join(candidate.scores)}")
    compared = {}  # the models of each row, and their score
    for least in min_actives:
        kept = rank_candidates(candidates, least)
        compared[f"TPL (act>{least - 1})" if least else "TPL"] = (kept, [-one.tpl for one in kept])
    for other in others:
        compared[other] = (list(candidates), [one.scores[other] for one in candidates])
    rows, intervals = {}, {}
    for row, (models, scores) in compared.items():
        columns = [[one.scores[name] for one in models] for name in against]
        rows[row] = (len(models), tuple(spearman(scores, column) for column in columns))
        intervals[row] = tuple(spearman_interval(scores, column) for column in columns)
    return CorrelationTable(tuple(against), rows, intervals)
