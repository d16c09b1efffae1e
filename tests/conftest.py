"""Fixed seeds for every test, and the list of skips that a complete machine may have."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import settings

from sc_layers.ops import loading

pytest_plugins = ["tests.skips"]

# A run that decides whether a change is accepted tries the same examples every time; any other run tries new ones.
settings.register_profile("decides", derandomize=True)
if os.environ.get("SC_LAYERS_CI") == "1":
    settings.load_profile("decides")

# A shell lets what it starts in the background ignore this signal, and processes that tests start would do the same.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _compiled_kernels() -> None:
    """Compile before the first test, so that no test's output holds the message that it takes a while."""
    loading.load("cpu")


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
