"""Networks of other programs as data, and rebuilding them with the user's own classes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from sc_layers import load_network
from sc_layers.checkpoints.errors import CheckpointError
from tests.checkpoints import samples
from tests.checkpoints.persistent import Net, Part, file_of


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
