"""Settings: what is refused, presets, JSON, the half-life of the average."""

from __future__ import annotations

import json

import pytest

from sc_layers.training.config import TRAINING_PRESETS, TrainingConfig, training_preset


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "vae"}, "model must be one of ps_sc, info_gan, ib_gan, gan, got 'vae'"),
        (
            {"model": "ib_gan"},
            "'ib_gan' has normal latents and no regularizer, got 'uniform' latents and regularizer 'no",
        ),
        ({"model": "ib_gan", "latents": "normal", "regularizer": "vp"}, "got 'normal' latents and regularizer 'vp'"),
        ({"latents": "gauss"}, "latents must be one of uniform, normal, got 'gauss'"),
        ({"batch": 0}, "batch must be positive, got 0"),
        ({"batch": 10, "batch_per_pass": 4}, "batch 10 is no multiple of batch_per_pass 4"),
        ({"d_reg_interval": 0}, "d_reg_interval must be at least 1, got 0"),
        ({"reader_noise": -0.1}, "reader_noise must be at least 0, got -0.1"),
        ({"unlock_first": "last"}, "unlock_first must be one of finest, coarsest, got 'last'"),
        ({"unlock_kimg": -1.0}, "unlock_kimg must be at least 0, got -1.0"),
        ({"unlock_kimg": 4.0, "cascade_kimg": 2.0}, "cascade_kimg 2.0 and unlock_kimg 4.0 exclude each other"),
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


def test_settings_of_runs_without_joining_codes_from_before_are_read() -> None:
    assert TrainingConfig.from_dict({**TrainingConfig().to_dict(), "unlock_kimg": None}) == TrainingConfig()
