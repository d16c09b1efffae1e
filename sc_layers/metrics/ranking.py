"""Ranking models by TPL, and how the ranking agrees with other metrics (paper, Sec. 4.1 and Table 1)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._optional import require


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


@dataclass(frozen=True)
class CorrelationTable:
    """Rank correlations of unsupervised and supervised scores, as in Table 1 of the paper.

    Attributes:
        columns: the supervised metrics.
        rows: the number of models and a correlation for each column (None where there is none), by the method's name.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[int, tuple[float | None, ...]]]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            name: {"models": num, **dict(zip(self.columns, values, strict=True))}
            for name, (num, values) in self.rows.items()
        }

    def table(self) -> str:
        """As text; "-" stands where there is no correlation."""
        width = max(len("method"), *map(len, self.rows)) + 1
        lines = [f"{'method':<{width}}{'models':>7}" + "".join(f"{name:>12}" for name in self.columns)]
        for name, (num, values) in self.rows.items():
            shown = ("-" if value is None else f"{value:.2f}" for value in values)
            lines.append(f"{name:<{width}}{num:>7}" + "".join(f"{value:>12}" for value in shown))
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
    rows = {}
    for least in min_actives:
        kept = rank_candidates(candidates, least)
        values = tuple(spearman([-c.tpl for c in kept], [c.scores[name] for c in kept]) for name in against)
        rows[f"TPL (act>{least - 1})" if least else "TPL"] = (len(kept), values)
    for other in others:
        values = tuple(
            spearman([c.scores[other] for c in candidates], [c.scores[name] for c in candidates]) for name in against
        )
        rows[other] = (len(candidates), values)
    return CorrelationTable(tuple(against), rows)
