"""The loop: what it leaves on disk, and that a resumed run goes on as if it had not been interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sc_layers import load_network
from sc_layers.data import open_dataset
from sc_layers.training import TrainingState, create_run_dir, resume_training, train
from tests.training.tiny import TINY, tiny_state

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    return open_dataset("shapes3d", 32)


def _train(folder: Path, dataset, state: TrainingState) -> Path:
    return train(state, dataset, create_run_dir(folder, "tiny"), {"data": "shapes3d"}, progress=False)


def test_run_leaves_snapshots_pictures_and_statistics(tmp_path: Path, dataset) -> None:
    seen = []
    state = tiny_state()
    run_dir = create_run_dir(tmp_path, "tiny")
    last = train(state, dataset, run_dir, {"data": "shapes3d"}, [lambda s, d: seen.append(s.images_seen)], False)
    assert seen == [32, 64]
    assert last == run_dir / "network-snapshot-000000.safetensors"
    stats = [json.loads(line) for line in (run_dir / "stats.jsonl").read_text().splitlines()]
    assert [line["kimg"] for line in stats] == [0.016, 0.032, 0.048, 0.064]
    assert {"loss/G", "loss/D", "loss/codes", "loss/R1", "images_per_second"} <= set(stats[0])
    assert Image.open(run_dir / "reals.png").size == (8 * 32, 6 * 32)
    assert Image.open(run_dir / "fakes000000.png").size == (8 * 32, 6 * 32)
    assert Image.open(run_dir / "masks000000.png").size == (3 * 32, 6 * 32)
    assert json.loads((run_dir / "training_options.json").read_text())["training"]["batch"] == 8
    networks = load_network(last)
    assert set(networks) == {"G", "D", "G_ema", "Q", "meta"}
    assert networks["meta"]["data"] == "shapes3d"
    assert not list(run_dir.glob("*.part"))


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, dataset) -> None:
    whole = tiny_state()
    _train(tmp_path / "whole", dataset, whole)
    half = tiny_state(TINY.replace(total_kimg=0.032))
    snapshot = _train(tmp_path / "half", dataset, half)
    torch.manual_seed(99)
    resumed, messages = resume_training(snapshot, TINY, CPU)
    assert messages == []
    assert (resumed.images_seen, resumed.updates) == (32, 4)
    _train(tmp_path / "half", dataset, resumed)
    for name in ("G", "D", "Q", "G_ema"):
        for key, value in getattr(whole, name).state_dict().items():
            torch.testing.assert_close(getattr(resumed, name).state_dict()[key], value, msg=f"{name}.{key}")


def test_finished_training_is_not_continued(tmp_path: Path, dataset) -> None:
    state = tiny_state()
    state.images_seen = 64
    with pytest.raises(ValueError, match="nothing to do: 64 images were seen"):
        _train(tmp_path, dataset, state)
