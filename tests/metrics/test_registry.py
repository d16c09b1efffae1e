"""Metrics by name: networks, settings, and what every metric's documentation says."""

from __future__ import annotations

from typing import Any

import pytest

from sc_layers.checkpoints.networks import NetworkRecord
from sc_layers.metrics import registry
from tests.networks import small_networks


def test_the_averaged_networks_are_measured() -> None:
    plain, averaged = small_networks(0), small_networks(1)
    loaded = {"G": plain["G_ema"], "G_ema": averaged["G_ema"], "Q": plain["Q"], "Q_ema": averaged["Q"]}
    networks = registry.Networks.of(loaded)
    assert networks.generator is averaged["G_ema"]
    assert networks.recognizer is averaged["Q"]
    plain_generator = plain["G_ema"]
    bare = registry.Networks(plain_generator, plain_generator, None, "normal")
    assert registry.Networks.of({"G": plain_generator}) == bare


def test_a_file_without_a_generator_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="no generator"):
        registry.Networks.of({"D": None})
    with pytest.raises(ValueError, match="generator of another program"):
        registry.Networks.of({"G": NetworkRecord("Net", (), {}, {})})


def test_codes_are_drawn_as_the_file_records_unless_told_otherwise() -> None:
    loaded: dict[str, Any] = {**small_networks(0), "meta": {"training": {"latents": "uniform"}}}
    assert registry.Networks.of(loaded).latents == "uniform"
    assert registry.Networks.of(loaded, latents="normal").latents == "normal"
    assert registry.Networks.of(small_networks(0)).latents == "normal"
    settings = registry.MeasureSettings(distance="mse")
    measures = registry.prepare(["tpl_small_0.3"], settings)
    result = registry.measure_tpl("tpl_small_0.3", registry.Networks.of(loaded), measures)
    assert result.base_codes.abs().max() <= 2


@pytest.mark.parametrize("name", registry.METRICS)
def test_every_metric_says_its_range_direction_weaknesses_and_source(name: str) -> None:
    metric = registry.METRICS[name]
    text = metric.function.__doc__
    for word in ("Range: ", "Weaknesses: ", "Source: "):
        assert word in text, word
    assert ("Better: higher" if metric.higher_is_better else "Better: lower") in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"effort": 0}, "effort must be positive, got 0"), ({"num_images": 1}, "num_images must be at least 2, got 1")],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.MeasureSettings(**settings)
