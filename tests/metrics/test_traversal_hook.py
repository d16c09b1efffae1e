"""The hook that measures TPL in anyone's training loop."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from sc_layers.metrics.traversal_hook import TraversalLengthHook, traversal_picture
from sc_layers.metrics.traversal_length import TPLSettings, traversal_perceptual_length
from tests.metrics.stripes import Stripes


class _Writer:
    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}
        self.images: dict[str, tuple[Tensor, int]] = {}

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        self.scalars[tag] = (value, global_step)

    def add_image(self, tag: str, image: Tensor, global_step: int) -> None:
        self.images[tag] = (image, global_step)


def test_the_hook_measures_every_so_many_steps_and_logs(tmp_path: Path) -> None:
    writer = _Writer()
    hook = TraversalLengthHook(tmp_path, every=10, distance="mse", writer=writer)
    generator = Stripes([3.0, 1.0, 2.0])
    results = [hook(generator, step, snapshot=f"net{step}.pkl") for step in range(11)]
    assert [step for step, result in enumerate(results) if result is not None] == [0, 10]
    lines = [json.loads(line) for line in (tmp_path / "metric-tpl_small_0.3.jsonl").read_text().splitlines()]
    assert [line["snapshot_pkl"] for line in lines] == ["net0.pkl", "net10.pkl"]
    assert lines[1]["metric"] == "tpl_small_0.3"
    assert lines[1]["results"]["tpl_small_0.3"] == results[10].total
    assert {"total_time", "timestamp"} <= set(lines[1])
    assert writer.scalars == {
        "Metrics/tpl_small_0.3": (results[10].total, 10),
        "Metrics/tpl_small_0.3_active": (3, 10),
    }
    assert writer.images["Traversal/tpl_small_0.3"][0].shape == (1, 3 * 3, 7 * 4)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["traversal-000000.png", "traversal-000010.png"]


def test_the_hook_follows_the_trainers_snapshots(tmp_path: Path) -> None:
    settings = TPLSettings(num_traversals=1)
    hook = TraversalLengthHook(every=2, settings=settings, distance="mse", pictures=False)
    for seen in (1000, 2000, 3000):
        hook.after_snapshot(SimpleNamespace(G_ema=Stripes([3.0, 1.0]), images_seen=seen), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metric-tpl.jsonl").read_text().splitlines()]
    assert [line["snapshot_pkl"] for line in lines] == [
        "network-snapshot-000001.safetensors",
        "network-snapshot-000003.safetensors",
    ]


def test_traversal_pictures_are_ordered_by_length() -> None:
    generator = Stripes([1.0, 40.0, 10.0])
    picture = traversal_picture(generator, traversal_perceptual_length(generator, distance="mse"), points=5)
    assert picture.shape == (1, 3 * 3, 5 * 4)
    # Code 1 moves the middle row of its image most, and is the first row of the grid.
    inner = picture[0].reshape(3, 3, 5, 4)[:, 1, :, 1].float()
    assert inner.std(dim=1).argmax() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every"),
        ({"settings": "x"}, ValueError, "unknown TPL preset"),
        ({"picture_points": 1}, ValueError, "picture_points must be at least 2"),
        ({"numcodes": 3}, TypeError, "numcodes"),
        ({"run_dir": "no-such-folder"}, NotADirectoryError, "no-such-folder"),
    ],
)
def test_the_hook_refuses_wrong_settings_at_once(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TraversalLengthHook(distance="mse", **arguments)
