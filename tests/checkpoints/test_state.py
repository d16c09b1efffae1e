"""One of our networks as data, and the network that it becomes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from sc_layers import CheckpointError
from sc_layers.checkpoints.state import NetworkState, check_module_list, num_parameters
from tests.checkpoints import samples
from tests.checkpoints.samples import assert_same


@pytest.mark.parametrize("name", ["G", "D", "Q"])
def test_a_network_becomes_data_and_comes_back(name: str) -> None:
    network = samples.networks()[name]
    state = NetworkState.of(name, network)
    made = state.build()
    assert_same(made, network)
    assert not made.training
    assert not any(parameter.requires_grad for parameter in made.parameters())
    assert num_parameters(state.state) == sum(tensor.numel() for tensor in network.state_dict().values())


def test_building_leaves_the_random_numbers_alone() -> None:
    state = samples.states()["G"]
    before = torch.get_rng_state()
    state.build()
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_ours_is_refused() -> None:
    class Generator(nn.Module):
        pass

    with pytest.raises(TypeError, match="G must be a Generator or Discriminator or Recognizer of sc_layers, got"):
        NetworkState.of("G", Generator())


def test_what_does_not_fit_is_named() -> None:
    state = samples.states()["D"]
    with pytest.raises(CheckpointError, match="unknown class of network 'Encoder'"):
        replace(state, kind="Encoder").build()
    with pytest.raises(
        CheckpointError, match=r"configuration of the Discriminator is not valid: .*unknown field depth"
    ):
        replace(state, config={**state.config, "depth": 3}).build()
    tensors = {name: tensor for name, tensor in state.state.items() if name != "output.bias"}
    with pytest.raises(CheckpointError, match=r"do not fit the Discriminator: output\.bias is missing"):
        replace(state, state=tensors).build()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "the module list is a NoneType, expected text"),
        ("[Const-2, C_spgroup-1-1000000]", "asks for more than any network has"),
        ("[Const-2, ResConv-up-20, ResConv-up-20]", "asks for more than any network has"),
        ("[Const-2, ResConv-id-500]", "is too long for 10 tensors"),
        ("[" + "Noise-1," * 300 + "]", "is too long for 10 tensors"),
    ],
)
def test_a_module_list_larger_than_its_tensors_is_refused_before_it_is_unfolded(text: object, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        check_module_list(text, 10)
