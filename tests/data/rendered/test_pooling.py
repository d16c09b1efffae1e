from __future__ import annotations

import numpy as np
import pytest
import torch

from sc_layers.data.rendered.pooling import average_pool
from tests.tolerances import ROUNDING


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_pools_bytes_without_overflow(factor: int) -> None:
    images = np.random.default_rng(0).integers(200, 256, (4, 2, 12, 6), dtype=np.uint8)
    expected = torch.nn.functional.avg_pool2d(torch.from_numpy(images).float(), factor)
    np.testing.assert_allclose(average_pool(images, factor), expected, rtol=ROUNDING["rtol"])
