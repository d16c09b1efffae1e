"""Checkpoints of rosinality's stylegan2-pytorch: state dicts beside an argparse Namespace."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from sc_layers import load_network
from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.models import Recognizer, RecognizerConfig
from tests.checkpoints import samples


class Generator(nn.Module):
    """As many parts of that program's generator as the sample has."""

    def __init__(self, size: int, style_dim: int, n_mlp: int, channel_multiplier: int) -> None:
        super().__init__()
        self.arguments = (size, style_dim, n_mlp, channel_multiplier)
        self.style = nn.Sequential(nn.Identity(), nn.Linear(style_dim, style_dim, bias=False))
        self.noises = nn.Module()
        self.noises.register_buffer("noise_0", torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("zipped", [True, False])
def test_networks_are_arguments_and_state_dicts(zipped: bool) -> None:
    content = samples.rosinality_dict()
    networks = load_network(io.BytesIO(samples.saved(content, zipped)))
    assert set(networks) == {"G", "D", "G_ema", "meta"}
    assert networks["meta"]["args"] == {"size": 4, "latent": 4, "n_mlp": 1, "channel_multiplier": 2}
    record = networks["G_ema"]
    assert record.class_name == "Generator"
    assert record.kwargs == {"size": 4, "style_dim": 4, "n_mlp": 1, "channel_multiplier": 2}
    for name, tensor in content["g_ema"].items():
        assert torch.equal(record.state[name], tensor)


def test_the_users_class_rebuilds_the_generator() -> None:
    content = samples.rosinality_dict()
    del content["d"]
    generator = load_network(io.BytesIO(samples.saved(content)), classes={"Generator": Generator})["G"]
    assert generator.arguments == (4, 4, 1, 2)
    assert torch.equal(generator.style[1].weight, content["g"]["style.1.weight"])


def _larger(content: dict[str, Any], doublings: int, noises: bool) -> dict[str, Any]:
    """The tensors by which a generator of 4 * 2^doublings pixels is known."""
    state = {"style.1.weight": content["g"]["style.1.weight"]}
    for index in range(2 * doublings):
        state[f"convs.{index}.conv.weight"] = torch.zeros(1, 256, 1, 1, 1)
    for index in range(doublings):
        state[f"to_rgbs.{index}.conv.weight"] = torch.zeros(1)
    if noises:
        state.update({f"noises.noise_{index}": torch.zeros(1) for index in range(1 + 2 * doublings)})
    return {"g": state, "g_ema": state}


@pytest.mark.parametrize("noises", [True, False])
def test_size_of_a_larger_generator_shows_in_its_layers_with_or_without_noises(noises: bool) -> None:
    content = _larger(samples.rosinality_dict(), 4, noises)
    record = load_network(io.BytesIO(samples.saved(content)))["G_ema"]
    assert (record.kwargs["size"], record.kwargs["channel_multiplier"]) == (64, 1)


def test_noises_that_an_old_file_lacks_are_drawn_by_the_users_class() -> None:
    content = samples.rosinality_dict()
    old = {"style.1.weight": content["g"]["style.1.weight"]}
    content = {"g": old, "g_ema": old}
    generator = load_network(io.BytesIO(samples.saved(content)), classes={"Generator": Generator})["G_ema"]
    assert generator.noises.noise_0.shape == (1, 1, 4, 4)


def test_attached_constriction_shows_in_its_tensors() -> None:
    content = samples.rosinality_dict()
    content["g"]["convs.1.constriction.gate_weight_h"] = torch.zeros(1, 4, 2, 8, 3)
    content["g"]["conv1.constriction.gate_weight_h"] = torch.zeros(2, 4, 2, 4, 3)
    attachment = load_network(io.BytesIO(samples.saved(content)))["G"].attachment
    assert attachment == {"num_codes": 3, "layers": ["conv1", "convs.1"], "num_rects": 4}


def test_recogniser_beside_the_networks_is_ours() -> None:
    recognizer = Recognizer(RecognizerConfig(resolution=8, num_codes=3, minibatch_std=False)).eval()
    content = {"g_ema": samples.rosinality_dict()["g_ema"], "q": recognizer.state_dict()}
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(load_network(io.BytesIO(samples.saved(content)))["Q"](images), recognizer(images))


def test_a_state_dict_that_holds_something_else_is_an_error() -> None:
    content = samples.rosinality_dict()
    content["d"]["convs.0.0.weight"] = "text"
    with pytest.raises(CheckpointError, match="state dict d holds something else"):
        load_network(io.BytesIO(samples.saved(content)))


def test_some_other_file_of_torch_save_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"neither from sc_layers nor from rosinality"):
        load_network(io.BytesIO(samples.saved({"model": {"weight": torch.zeros(1)}})))
