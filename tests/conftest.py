"""Fixed seeds for every test, and the list of skips that a complete machine may have."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest_plugins = ["tests.skips"]


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
