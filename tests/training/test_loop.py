"""The loop: what it leaves on disk, and that a resumed run goes on as if it had not been interrupted."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest
import torch
from PIL import Image

from sc_layers import load_network
from sc_layers.data import Dataset, open_dataset
from sc_layers.training import TrainingState, create_run_dir, resume_training, train
from sc_layers.training.snapshots import DivergedError
from tests.data.files import random_pixels, write_pngs
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


@pytest.fixture
def damaged(tmp_path: Path) -> Dataset:
    """Pictures of which the last cannot be read."""
    paths = write_pngs(tmp_path / "pictures", random_pixels(40, size=32))
    paths[-1].write_bytes(paths[-1].read_bytes()[:500])
    return open_dataset(tmp_path / "pictures")


def test_a_damaged_picture_ends_a_long_run_soon_by_its_name(tmp_path: Path, damaged: Dataset) -> None:
    state = tiny_state(TINY.replace(total_kimg=1000))
    with pytest.raises(ValueError, match=r"039\.png cannot be read as an image"):
        _train(tmp_path, damaged, state)
    assert not multiprocessing.active_children()


def test_training_goes_on_without_damaged_pictures_on_request(tmp_path: Path, damaged: Dataset) -> None:
    state = tiny_state(TINY)
    run_dir = create_run_dir(tmp_path, "tiny")
    with pytest.warns(UserWarning, match=r"left out, 1 so far: .*039\.png cannot be read"):
        train(state, damaged, run_dir, {}, progress=False, workers=0, skip_bad=True)
    assert state.images_seen == 64


def test_a_training_that_has_diverged_stops_and_keeps_what_was_written(tmp_path: Path, dataset) -> None:
    state = tiny_state(TINY.replace(total_kimg=1, snapshot_kimg=0.16))
    run_dir = create_run_dir(tmp_path, "tiny")

    def spoil(state: TrainingState, _: Path) -> None:
        next(state.G.parameters()).data.fill_(float("nan"))

    with pytest.raises(DivergedError, match="diverged: in 20 steps in a row, up to 320 images, gradients were not"):
        train(state, dataset, run_dir, {}, [spoil], progress=False)
    assert torch.isfinite(next(load_network(run_dir / "network-snapshot-000000.safetensors")["G"].parameters())).all()
