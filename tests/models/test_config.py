"""Configurations: the rule of widths, JSON, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sc_layers.models import DiscriminatorConfig, GeneratorConfig, RecognizerConfig, parse_module_list
from sc_layers.models.config import NetworkConfig

MODULES = parse_module_list("[Const-8, Conv-up-1, C_global-2]")


@pytest.mark.parametrize(
    ("fields", "widths"),
    [
        ({"fmap_base": 64, "fmap_min": 8, "fmap_max": 24}, [24, 24, 16, 8, 8]),
        ({"fmap_base": 32, "fmap_decay": 0.15, "fmap_min": 6}, [32, 28, 25, 23, 21]),
    ],
)
def test_widths_fall_with_the_stage_within_their_limits(fields: dict[str, Any], widths: list[int]) -> None:
    config = DiscriminatorConfig(resolution=32, **fields)
    assert [config.width(stage) for stage in range(5)] == widths


@pytest.mark.parametrize(
    "config",
    [
        GeneratorConfig(module_list=MODULES, resolution=8),
        GeneratorConfig(module_list=MODULES, resolution=8, num_channels=1, nf_scale=None, fmap_decay=0.5),
        DiscriminatorConfig(resolution=8, fmap_base=64, minibatch_std=False),
        RecognizerConfig(resolution=16, num_codes=7),
    ],
)
def test_a_config_round_trips_through_json(config: NetworkConfig) -> None:
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_whole_numbers_are_read_as_floats_where_floats_belong() -> None:
    config = DiscriminatorConfig.from_dict({"resolution": 8, "fmap_decay": 1})
    assert isinstance(config.fmap_decay, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"surprise": 1}, "unknown field surprise"),
        ({"resolution": "8"}, "field resolution must be int, got '8'"),
        ({"resolution": True}, "field resolution must be int, got True"),
        ({"minibatch_std": 1}, "field minibatch_std must be bool, got 1"),
        ({"resolution": 24}, "resolution must be a power of two from 8, got 24"),
        ({"resolution": 4}, "resolution must be a power of two from 8, got 4"),
        ({"fmap_max": 2}, "fmap_max must be at least fmap_min = 16, got 2"),
        ({"num_channels": 0}, "num_channels must be at least 1, got 0"),
        ({"num_codes": 0}, "num_codes must be at least 1, got 0"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecognizerConfig.from_dict({"resolution": 8, "num_codes": 2, **change})


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ValueError, match="GeneratorConfig: missing field module_list"):
        GeneratorConfig.from_dict({"resolution": 8})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resolution": 16}, "8x8 pixels, but the resolution is 16"),
        ({"module_list": parse_module_list("[Const-8, Conv-up-1]")}, "no module of the list reads a code"),
        ({"nf_scale": 0}, "nf_scale must be at least 1 or None, got 0"),
    ],
)
def test_a_generator_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneratorConfig(**{"module_list": MODULES, "resolution": 8, **change})


def test_module_lists_in_json_are_text() -> None:
    with pytest.raises(ValueError, match="module_list must be text"):
        GeneratorConfig.from_dict({"resolution": 8, "module_list": ["Const-8"]})


def test_generator_widths_by_module_index_count_every_module() -> None:
    modules = parse_module_list("[Const-99, Conv-up-1, C_spgroup-2-1, Noise-1, C_global-1, Conv-id-1]")
    config = GeneratorConfig(module_list=modules, resolution=8, fmap_base=64, fmap_decay=1.0, fmap_min=4, nf_scale=2)
    assert config.module_widths() == (99, 64, 64, 32, 16, 16)


def test_generator_widths_by_resolution_are_those_of_the_discriminator() -> None:
    modules = parse_module_list("[Const-99, Conv-up-2, C_spgroup-2-1, Conv-down-1, Conv-up-1]")
    fields: dict[str, Any] = {"resolution": 16, "fmap_base": 64, "fmap_decay": 1.0, "fmap_min": 4}
    config = GeneratorConfig(module_list=modules, nf_scale=None, **fields)
    width = DiscriminatorConfig(**fields).size_width
    assert config.module_widths() == (99, width(16), width(16), width(8), width(16)) == (99, 8, 8, 16, 8)
