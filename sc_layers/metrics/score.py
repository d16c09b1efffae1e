"""The value of a metric, and what has to be said beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Score:
    """The value of one metric.

    Attributes:
        name: name of the metric, as the command line spells it.
        score: the headline number.
        details: further numbers and arrays by name, such as training accuracy or the importance matrix.
        note: what a reader of the number has to know, such as that it is of fewer images than its standard's.
    """

    name: str
    score: float
    details: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The same as plain lists and numbers, ready for JSON."""
        return {
            "name": self.name,
            "score": self.score,
            **({"note": self.note} if self.note else {}),
            **{key: _plain(value) for key, value in self.details.items()},
        }


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def shortfall(num: int, standard: int, what: str) -> str:
    """The note of a number that is of fewer than the `standard` number of `what`; empty where `num` is not less.

    >>> shortfall(2000, 50000, "images")
    "2,000 of the standard's 50,000 images"
    """
    return f"{num:,} of the standard's {standard:,} {what}" if num < standard else ""
