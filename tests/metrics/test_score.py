"""The value of a metric as JSON holds it, and the note of a number that rests on too few images."""

from __future__ import annotations

import json

import numpy as np
import pytest

from sc_layers.metrics.score import Score, shortfall


def test_a_score_fits_into_json() -> None:
    score = Score("mig", 0.5, {"matrix": np.eye(2), "accuracy": np.float64(0.25), "kept": [1, 2]})
    expected = {"name": "mig", "score": 0.5, "matrix": [[1, 0], [0, 1]], "accuracy": 0.25, "kept": [1, 2]}
    assert json.loads(json.dumps(score.to_dict())) == expected


def test_a_note_is_written_only_where_there_is_one() -> None:
    assert "note" not in Score("fid", 1.0).to_dict()
    assert Score("fid", 1.0, note="of few images").to_dict()["note"] == "of few images"


@pytest.mark.parametrize(("num", "note"), [(10, "10 of the standard's 2,000 pairs"), (2000, ""), (3000, "")])
def test_only_less_than_the_standard_is_a_shortfall(num: int, note: str) -> None:
    assert shortfall(num, 2000, "pairs") == note
