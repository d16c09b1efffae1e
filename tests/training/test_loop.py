"""The loop: what it leaves on disk, resuming, and what one step does to every network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from sc_layers import load_network
from sc_layers.data import open_dataset
from sc_layers.models import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    Recognizer,
    RecognizerConfig,
    parse_module_list,
)
from sc_layers.training import TrainingConfig, TrainingState, create_run_dir, find_snapshot, resume_training, train
from sc_layers.training.config import TRAINING_PRESETS, training_preset
from sc_layers.training.step import training_step, update_discriminator

CPU = torch.device("cpu")
TINY = TrainingConfig(
    total_kimg=0.064, batch=8, batch_per_pass=4, r1_gamma=1.0, d_reg_interval=2, tick_kimg=0.016, snapshot_kimg=0.032
)


def _tiny_state(config: TrainingConfig = TINY) -> TrainingState:
    modules = parse_module_list("[Const-8, ResConv-up-1, C_spgroup-2-2, Noise-1, ResConv-up-1, C_global-1, Conv-up-1]")
    shape = {"resolution": 32, "num_channels": 3, "fmap_base": 16, "fmap_min": 4, "fmap_max": 8}
    torch.manual_seed(config.seed)
    return TrainingState.create(
        config,
        Generator(GeneratorConfig(module_list=modules, **shape)),
        Discriminator(DiscriminatorConfig(**shape)),
        Recognizer(RecognizerConfig(num_codes=3, **shape)) if config.model != "gan" else None,
    )


@pytest.fixture(scope="module")
def dataset():
    return open_dataset("shapes3d", 32)


def _train(folder: Path, dataset, state: TrainingState) -> Path:
    return train(state, dataset, create_run_dir(folder, "tiny"), {"data": "shapes3d"}, progress=False)


def test_run_leaves_snapshots_pictures_and_statistics(tmp_path: Path, dataset) -> None:
    seen = []
    state = _tiny_state()
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


def test_run_dirs_are_numbered(tmp_path: Path) -> None:
    assert create_run_dir(tmp_path / "runs", "a").name == "00000-a"
    assert create_run_dir(tmp_path / "runs", "b").name == "00001-b"


def test_resumed_training_equals_an_uninterrupted_one(tmp_path: Path, dataset) -> None:
    whole = _tiny_state()
    _train(tmp_path / "whole", dataset, whole)
    half = _tiny_state(TINY.replace(total_kimg=0.032))
    snapshot = _train(tmp_path / "half", dataset, half)
    torch.manual_seed(99)
    resumed, messages = resume_training(snapshot, TINY, CPU)
    assert messages == []
    assert (resumed.images_seen, resumed.updates) == (32, 4)
    _train(tmp_path / "half", dataset, resumed)
    for name in ("G", "D", "Q", "G_ema"):
        for key, value in getattr(whole, name).state_dict().items():
            torch.testing.assert_close(getattr(resumed, name).state_dict()[key], value, msg=f"{name}.{key}")


def test_resuming_without_optimizer_state_says_so(tmp_path: Path, dataset) -> None:
    snapshot = _train(tmp_path, dataset, _tiny_state(TINY.replace(total_kimg=0.032)))
    (snapshot.parent / "training-state.pt").unlink()
    _, messages = resume_training(snapshot, TINY, CPU)
    assert messages == [f"no training-state.pt of {snapshot.name} beside it: the optimisers start afresh"]


def test_finished_training_is_not_continued(tmp_path: Path, dataset) -> None:
    state = _tiny_state()
    state.images_seen = 64
    with pytest.raises(ValueError, match="nothing to do: 64 images were seen"):
        _train(tmp_path, dataset, state)


@pytest.mark.parametrize("model", ["ps_sc", "info_gan", "gan"])
def test_step_moves_every_network(model: str) -> None:
    state = _tiny_state(TINY.replace(model=model, average_recognizer=model != "gan"))
    networks = {name: getattr(state, name) for name in ("G", "D", "Q", "G_ema", "Q_ema")}
    networks = {name: network for name, network in networks.items() if network is not None}
    assert ("Q" in networks) == (model != "gan")
    before = {name: [p.clone() for p in network.parameters()] for name, network in networks.items()}
    losses = training_step(state, torch.randn(8, 3, 32, 32))
    assert all(torch.isfinite(loss) for loss in losses.values())
    for name, network in networks.items():
        # Strengths of noise and weights behind zeros may stand still in one step, most must move.
        moved = [not torch.equal(p, old) for p, old in zip(network.parameters(), before[name], strict=True)]
        assert sum(moved) > 0.7 * len(moved), name
    assert state.images_seen == 8
    assert state.updates == 1


def test_r1_runs_in_the_first_step_and_then_at_its_interval() -> None:
    state = _tiny_state()
    ran = ["loss/R1" in training_step(state, torch.randn(8, 3, 32, 32)) for _ in range(4)]
    assert ran == [True, False, True, False]


def test_gradients_of_passes_add_up_to_those_of_the_batch() -> None:
    reals, codes = torch.randn(4, 3, 32, 32), torch.randn(4, 3)
    one, many = _tiny_state(), _tiny_state()
    update_discriminator(one, [reals, reals], [codes, codes])
    update_discriminator(many, [reals], [codes])
    for p, q in zip(one.D.parameters(), many.D.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vae"}, "model must be one of ps_sc, info_gan, gan, got 'vae'"),
        ({"latents": "gauss"}, "latents must be one of uniform, normal, got 'gauss'"),
        ({"batch": 0}, "batch must be positive, got 0"),
        ({"batch": 10, "batch_per_pass": 4}, "batch 10 is no multiple of batch_per_pass 4"),
        ({"d_reg_interval": 0}, "d_reg_interval must be at least 1, got 0"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**changes)


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown preset 'mnist'; presets: celeba, ffhq, shapes3d, dsprites, demo"):
        training_preset("mnist")


@pytest.mark.parametrize("name", TRAINING_PRESETS)
def test_settings_survive_json(name: str) -> None:
    config = training_preset(name)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_average_ramps_up_with_the_images_seen() -> None:
    config = TrainingConfig(ema_kimg=3, ema_rampup=0.1, batch=16)
    assert config.ema_beta(0) == pytest.approx(0.5 ** (16 / 200))
    assert config.ema_beta(10_000) == pytest.approx(0.5 ** (16 / 1000))
    assert config.ema_beta(1_000_000) == pytest.approx(0.5 ** (16 / 3000))


def test_missing_snapshots_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such network file or run folder"):
        find_snapshot(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match=r"no network-snapshot-\*.safetensors or .pkl in the folder"):
        find_snapshot(tmp_path)
