"""Networks to save; and what loading imports on its first run is imported before tests watch for imports."""

from __future__ import annotations

import io

import pytest
from torch import nn

from sc_layers.checkpoints import load_network
from tests.checkpoints import samples


@pytest.fixture(autouse=True, scope="session")
def _imported() -> None:
    for data in samples.all_formats().values():
        load_network(io.BytesIO(data), impl="reference")


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    return samples.networks()
