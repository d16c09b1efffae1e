"""Metrics at the snapshots of a training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sc_layers.metrics import MeasureSettings
from sc_layers.metrics.snapshot_metrics import SnapshotMetrics
from tests.training.tiny import tiny_state


class _Writer:
    def __init__(self) -> None:
        self.scalars: dict[str, int] = {}

    def add_scalar(self, name: str, value: float, global_step: int) -> None:
        self.scalars[name] = global_step


def test_each_value_is_a_line_of_its_metric_and_shown(tmp_path: Path) -> None:
    writer = _Writer()
    settings = MeasureSettings(data="shapes3d", resolution=32, distance="mse", num_images=8, effort=0.01)
    hook = SnapshotMetrics(["ppl", "mig"], settings, writer)
    state = tiny_state()
    assert state.Q is not None
    state.images_seen = 512
    hook.after_snapshot(state, tmp_path)
    assert state.Q.training
    for name in ("ppl", "mig"):
        (line,) = map(json.loads, (tmp_path / f"metric-{name}.jsonl").read_text().splitlines())
        assert line["metric"] == name
        assert line["results"][name] == line["results"]["score"]
        assert line["snapshot_pkl"] == "network-snapshot-000000.512.safetensors"
    assert writer.scalars == {"Metrics/ppl": 512, "Metrics/mig": 512}


def test_what_cannot_be_measured_is_refused_before_the_training() -> None:
    with pytest.raises(ValueError, match="unknown metric 'beauty'"):
        SnapshotMetrics(["beauty"], MeasureSettings(data="shapes3d"))
