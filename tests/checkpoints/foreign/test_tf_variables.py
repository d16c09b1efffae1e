"""The authors' variables and arguments: both directions, initial values, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sc_layers.checkpoints.foreign.tf_variables import config_from_tf, state_dict_from_tf
from sc_layers.models import DiscriminatorConfig, GeneratorConfig, RecognizerConfig, format_module_list
from sc_layers.models.config import NetworkConfig
from tests.checkpoints.foreign.variables import variables_from_state_dict
from tests.models.golden_networks import FILES, config, initial_statistics, load, names, network

GENERATOR: dict[str, Any] = {"resolution": 8, "num_channels": 1, "module_list": ["Const-8", "Conv-up-1", "C_global-2"]}
TRUNK: dict[str, Any] = {"resolution": 8, "num_channels": 1}


@pytest.mark.parametrize("name", FILES)
def test_variables_survive_the_way_there_and_back(name: str) -> None:
    golden = load(name)
    for key in names(golden):
        theirs = golden.group(f"{key}/")
        back = variables_from_state_dict(config(golden, key), network(golden, key).state_dict())
        assert list(back) == list(theirs)
        for variable, array in theirs.items():
            assert np.array_equal(back[variable], array), variable


@pytest.mark.parametrize("name", FILES)
def test_fresh_networks_start_as_the_official_ones(name: str) -> None:
    """Shape and kind of every variable: zeros where official zeros are, else mean 0 and deviation 1 within 5 sigma."""
    golden = load(name)
    for key, statistics in initial_statistics(golden).items():
        made = type(network(golden, "Gs" if key == "G" else key))(config(golden, key))
        fresh = variables_from_state_dict(made.config, made.state_dict())
        assert list(fresh) == [variable for variable, *_ in statistics]
        trained = sum(math.prod(shape) for _, shape, is_trainable, _, _ in statistics if is_trainable)
        assert sum(parameter.numel() for parameter in made.parameters()) == trained
        for variable, shape, _, _, deviation in statistics:
            values = fresh[variable].ravel()
            assert list(fresh[variable].shape) == shape, variable
            if deviation == 0:
                assert not values.any(), variable
            else:
                assert abs(values.mean()) < 5 / values.size**0.5, variable
                assert abs(values.std() - 1) < 5 / (2 * values.size) ** 0.5, variable


def test_a_missing_or_unexpected_variable_is_named() -> None:
    golden = load("gen_e")
    variables = golden.group("D/")
    variables["More/weight"] = variables.pop("Output/bias")
    with pytest.raises(ValueError, match="1 missing, such as Output/bias"):
        state_dict_from_tf(config(golden, "D"), variables)
    variables["Output/bias"] = variables["More/weight"]
    with pytest.raises(ValueError, match="1 unexpected, such as More/weight"):
        state_dict_from_tf(config(golden, "D"), variables)


def test_a_variable_of_the_wrong_shape_is_named() -> None:
    golden = load("gen_e")
    variables = {**golden.group("D/"), "Output/bias": np.zeros(2, dtype=np.float32)}
    with pytest.raises(ValueError, match=r"Output/bias must have shape \(1,\), got \(2,\)"):
        state_dict_from_tf(config(golden, "D"), variables)


def test_a_config_of_no_network_is_refused() -> None:
    bare = NetworkConfig(resolution=8)
    with pytest.raises(TypeError, match="got NetworkConfig"):
        state_dict_from_tf(bare, {})


def test_configs_come_from_the_authors_arguments() -> None:
    golden = load("gen_a")
    generator, discriminator, recognizer = (config(golden, key) for key in ("Gs", "D", "I"))
    assert isinstance(generator, GeneratorConfig)
    assert format_module_list(generator.module_list) == golden.config["flags"][1]
    assert (generator.fmap_base, generator.fmap_decay, generator.nf_scale) == (64, 1.0, 6)
    assert discriminator == DiscriminatorConfig(resolution=32, fmap_base=128, fmap_min=8, fmap_max=24)
    assert recognizer == RecognizerConfig(resolution=32, fmap_base=64, fmap_min=8, fmap_max=24, num_codes=13)


def test_defaults_are_those_of_the_authors_functions() -> None:
    generator = config_from_tf("G_main_ps_sc", GENERATOR)
    assert isinstance(generator, GeneratorConfig)
    assert (generator.fmap_base, generator.fmap_decay, generator.nf_scale) == (16 << 10, 1.0, 4)
    assert (generator.fmap_min, generator.fmap_max) == (1, 512)
    recognizer = config_from_tf("training.ps_sc_networks2.head_infogan2", TRUNK)
    assert isinstance(recognizer, RecognizerConfig)
    assert (recognizer.num_codes, recognizer.minibatch_std) == (10, True)


@pytest.mark.parametrize("group_size", [0, 1])
def test_groups_of_one_stand_for_no_minibatch_std(group_size: int) -> None:
    made = config_from_tf("D_stylegan2", {**TRUNK, "mbstd_group_size": group_size})
    assert isinstance(made, DiscriminatorConfig)
    assert not made.minibatch_std


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        ("G_main", GENERATOR, "unknown network function 'G_main'; known are G_main_ps_sc"),
        ("G_main_ps_sc", {**GENERATOR, "label_size": 3}, "label_size=3 is not supported, only label_size=0"),
        ("G_main_ps_sc", {**GENERATOR, "latent_size": 3}, "latent_size=3, but its modules read 2 codes"),
        ("G_main_ps_sc", {**GENERATOR, "synthesis_func": "G_other"}, "synthesis_func='G_other' is not supported"),
        (
            "G_main_ps_sc",
            {**GENERATOR, "module_list": "[Const-8, Conv-up-1, C_global-2, Noise-1]"},
            "Noise modules but use_noise=False",
        ),
        ("D_stylegan2", {"resolution": 8}, "needs the argument num_channels"),
        ("D_stylegan2", {**TRUNK, "architecture": "skip"}, "architecture='skip' is not supported"),
        ("D_stylegan2", {**TRUNK, "mbstd_group_size": 8}, "mbstd_group_size=8 is not supported, only 0, 1 or 4"),
    ],
)
def test_networks_that_ours_cannot_be_are_refused(function: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_tf(function, arguments)


def test_state_dicts_are_float32_whatever_came() -> None:
    golden = load("gen_e")
    doubles = {name: array.astype(np.float64) for name, array in golden.group("D/").items()}
    state = state_dict_from_tf(config(golden, "D"), doubles)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
