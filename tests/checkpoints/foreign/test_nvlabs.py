"""Pickles of persistent classes: arguments and tensors are taken, and the user's own classes rebuild them."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sc_layers import load_network
from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.models import Recognizer, RecognizerConfig
from tests.checkpoints import samples


class Part(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, width))
        self.register_buffer("scale", torch.zeros([]))


class Net(nn.Module):
    """The class that the sample's networks were made of."""

    def __init__(self, height: int, width: int, options: dict[str, Any]) -> None:
        super().__init__()
        self.options = options
        self.bias = nn.Parameter(torch.zeros(height))
        self.register_buffer("scale", torch.zeros([]))
        self.part = Part(width)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.part.weight.T * self.scale + self.bias


def file_of(content: Any = None) -> io.BytesIO:
    return io.BytesIO(pickle.dumps(samples.persistence_dict() if content is None else content, 4))


def test_without_classes_a_network_is_its_arguments_and_its_state() -> None:
    networks = load_network(file_of())
    assert set(networks) == {"G", "D", "G_ema", "meta"}
    record = networks["G"]
    assert (record.class_name, record.args) == ("Net", (2,))
    assert record.kwargs == {"width": 3, "options": {"depth": 1}}
    assert set(record.state) == {"bias", "scale", "part.weight", "part.scale"}
    assert torch.equal(record.state["part.weight"], torch.arange(6.0).reshape(2, 3))
    assert networks["meta"]["training_set_kwargs"] == {"path": "images.zip"}


def test_with_classes_the_network_is_rebuilt() -> None:
    network = load_network(file_of(), classes={"Net": Net})["G_ema"]
    assert isinstance(network, Net)
    assert network.options == {"depth": 1}
    assert not network.training
    expected = torch.tensor([[0.0 + 1 + 2 + 0.5, 3.0 + 4 + 5 - 1]])
    assert torch.equal(network(torch.ones(1, 3)), expected)


def test_classes_may_be_modules() -> None:
    here = samples.in_modules("own_networks", "Net", Net)
    assert isinstance(load_network(file_of(), classes=here)["D"], Net)
    other = samples.in_modules("own_other_networks", "Part", Part)
    assert isinstance(load_network(file_of(), classes=[other, here])["D"], Net)


def test_a_class_that_is_not_given_is_named() -> None:
    with pytest.raises(CheckpointError, match="have no 'Net'"):
        load_network(file_of(), classes={"Part": Part})


def test_what_is_no_module_is_refused_as_a_class() -> None:
    with pytest.raises(CheckpointError, match="'Net' among the given classes is not a torch"):
        load_network(file_of(), classes={"Net": dict})


def test_every_tensor_that_does_not_fit_is_named() -> None:
    class Other(Net):
        def __init__(self, height: int, width: int, options: dict[str, Any]) -> None:
            super().__init__(height + 1, width, options)
            self.more = nn.Parameter(torch.zeros(1))
            del self.part.scale

    with pytest.raises(CheckpointError) as error:
        load_network(file_of(), classes={"Net": Other})
    for problem in ("more is missing", "part.scale is not part of it", r"bias has shape (2,), expected (3,)"):
        assert problem in str(error.value)


def test_arguments_that_a_class_refuses_are_an_error() -> None:
    class Other(Net):
        def __init__(self, height: int) -> None:
            super().__init__(height, 3, {})

    with pytest.raises(CheckpointError, match="refuses the stored arguments"):
        load_network(file_of(), classes={"Net": Other})


def test_arguments_cannot_ask_for_tensors_much_larger_than_the_file() -> None:
    content = samples.persistence_dict() | {"G": samples.persistent_network(width=2**40)}
    with pytest.raises(CheckpointError, match="unfolds to much more data"):
        load_network(file_of(content), classes={"Net": Net})


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
