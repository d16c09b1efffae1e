"""Average pooling in NumPy, which works in one thread: training keeps the others busy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def average_pool(images: npt.NDArray[Any], factor: int) -> npt.NDArray[np.float32]:
    """Means of squares of `factor` x `factor` pixels, of images [..., H, W]."""
    height, width = images.shape[-2:]
    total = np.zeros((*images.shape[:-2], height // factor, width // factor), np.float32)
    for row in range(factor):
        for column in range(factor):
            total += images[..., row::factor, column::factor]
    total /= factor**2
    return total
