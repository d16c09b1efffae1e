"""Pickles of persistent classes: arguments and tensors are taken, the source text in them is not."""

from __future__ import annotations

import copy

import pytest
import torch

from sc_layers import load_network
from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.models import Recognizer, RecognizerConfig
from tests.checkpoints import samples
from tests.checkpoints.persistent import file_of


def test_without_classes_a_network_is_its_arguments_and_its_state() -> None:
    networks = load_network(file_of())
    assert set(networks) == {"G", "D", "G_ema", "meta"}
    record = networks["G"]
    assert (record.class_name, record.args) == ("Net", (2,))
    assert record.kwargs == {"width": 3, "options": {"depth": 1}}
    assert set(record.state) == {"bias", "scale", "part.weight", "part.scale"}
    assert torch.equal(record.state["part.weight"], torch.arange(6.0).reshape(2, 3))
    assert networks["meta"]["training_set_kwargs"] == {"path": "images.zip"}


def test_recogniser_beside_the_networks_is_ours() -> None:
    recognizer = Recognizer(RecognizerConfig(resolution=8, num_codes=2, minibatch_std=False, fmap_max=16)).eval()
    networks = load_network(file_of(samples.persistence_dict() | {"Q": copy.deepcopy(recognizer)}))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(networks["Q"](images), recognizer(images))


def test_a_part_that_is_no_module_is_an_error() -> None:
    content = samples.persistence_dict()
    content["G"].meta["state"]["_modules"]["part"] = [1]
    with pytest.raises(CheckpointError, match=r"part\. is not a module"):
        load_network(file_of(content))
