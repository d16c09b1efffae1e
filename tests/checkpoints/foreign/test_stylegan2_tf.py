"""StyleGAN2's TensorFlow networks under the names and in the layouts of stylegan2-ada-pytorch."""

from __future__ import annotations

import io
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from sc_layers import load_network
from sc_layers.checkpoints.errors import CheckpointError
from tests.checkpoints import samples


def load(networks: Any) -> dict[str, Any]:
    return load_network(io.BytesIO(pickle.dumps(networks, 4)))


def test_arguments_are_those_of_the_other_program() -> None:
    networks = load(samples.stylegan2_tuple())
    assert set(networks) == {"G", "D", "G_ema", "meta"}
    generator, discriminator = networks["G_ema"], networks["D"]
    assert generator.class_name == "Generator"
    assert generator.kwargs == {
        "z_dim": 4,
        "c_dim": 0,
        "w_dim": 3,
        "img_resolution": 8,
        "img_channels": 3,
        "mapping_kwargs": {"num_layers": 2, "layer_features": 3},
        "synthesis_kwargs": {"channel_base": 32, "channel_max": 512},
    }
    assert discriminator.class_name == "Discriminator"
    assert discriminator.kwargs["channel_base"] == 32
    assert discriminator.kwargs["epilogue_kwargs"] == {"mbstd_group_size": 4}


def test_variables_change_names_and_layouts() -> None:
    networks = samples.stylegan2_tuple()
    synthesis = dict(networks[2].components["synthesis"].variables)
    mapping = dict(networks[2].components["mapping"].variables)
    state = load(networks)["G_ema"].state
    expected = {
        "synthesis.b4.const": synthesis["4x4/Const/const"][0],
        "synthesis.b4.conv1.weight": synthesis["4x4/Conv/weight"].transpose(3, 2, 0, 1),
        "synthesis.b4.conv1.noise_const": synthesis["noise0"][0, 0],
        "synthesis.b8.conv0.noise_const": synthesis["noise1"][0, 0],
        "synthesis.b8.conv1.noise_const": synthesis["noise2"][0, 0],
        "synthesis.b8.conv0.weight": synthesis["8x8/Conv0_up/weight"][::-1, ::-1].transpose(3, 2, 0, 1),
        "synthesis.b8.conv1.noise_strength": synthesis["8x8/Conv1/noise_strength"],
        "synthesis.b8.torgb.affine.weight": synthesis["8x8/ToRGB/mod_weight"].T,
        "synthesis.b8.torgb.affine.bias": synthesis["8x8/ToRGB/mod_bias"] + 1,
        "mapping.fc1.weight": mapping["Dense1/weight"].T,
        "mapping.w_avg": dict(networks[2].variables)["dlatent_avg"],
    }
    for name, array in expected.items():
        assert torch.equal(state[name], torch.from_numpy(np.array(array))), name
    assert len(state) == len(synthesis) + len(mapping) + 1


def test_an_argument_that_the_other_program_lacks_is_named() -> None:
    networks = samples.stylegan2_tuple()
    networks[0].static_kwargs["fmap_decay"] = 0.5
    with pytest.raises(CheckpointError, match=r"fmap_decay=0\.5 is not known"):
        load(networks)


def test_a_variable_that_the_other_program_lacks_is_named() -> None:
    networks = samples.stylegan2_tuple()
    networks[1].variables.append(("8x8/Attention/weight", np.zeros((1, 1), np.float32)))
    with pytest.raises(CheckpointError, match="8x8/Attention/weight belongs to no known part"):
        load(networks)


def test_networks_of_two_programs_in_one_file_are_an_error() -> None:
    networks = samples.stylegan2_tuple()[:2] + samples.tensorflow_tuple()[3:]
    with pytest.raises(CheckpointError, match="G_main_ps_sc, which is not StyleGAN2's"):
        load(networks)
