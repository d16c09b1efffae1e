"""What loading imports on its first run is imported before tests watch for imports."""

from __future__ import annotations

import io

import pytest

from sc_layers.checkpoints import load_network
from tests.checkpoints.samples import all_formats


@pytest.fixture(autouse=True, scope="session")
def _imported() -> None:
    for data in all_formats().values():
        load_network(io.BytesIO(data), impl="reference")
