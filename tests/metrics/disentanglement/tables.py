"""Data sets whose images are rows of a table: the representation is the image itself."""

from __future__ import annotations

import numpy as np
import torch

from sc_layers.metrics.disentanglement.factors import Grid


class Table:
    """A grid of factors whose image is a stored representation, as in the reference numbers."""

    def __init__(self, codes: np.ndarray, factor_sizes: np.ndarray) -> None:
        self.codes = torch.from_numpy(np.asarray(codes, dtype=np.float32))
        self.factor_sizes = tuple(int(size) for size in factor_sizes)

    def images(self, factors: np.ndarray) -> torch.Tensor:
        return self.codes[np.ravel_multi_index(np.asarray(factors).T, self.factor_sizes)][..., None, None]


class Pictures:
    """Images in an array [N, H, W] uint8, as a data set."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images).unsqueeze(1)

    def __len__(self) -> int:
        return len(self.images)

    def images_at(self, indices: np.ndarray) -> torch.Tensor:
        return self.images[torch.as_tensor(np.asarray(indices))]


class CellTable(Grid):
    """The same, with one random draw a cell of the grid, as the program of the paper samples."""

    def __init__(self, codes: np.ndarray, factor_sizes: np.ndarray) -> None:
        super().__init__(Table(codes, factor_sizes))

    def draw_factors(self, num: int, rng: np.random.RandomState) -> np.ndarray:
        return np.stack(np.unravel_index(rng.randint(np.prod(self.factor_sizes), size=num), self.factor_sizes), axis=1)


def identity(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


def perfect_table(factor_sizes: tuple[int, ...] = (4, 5, 6), num_dead: int = 0) -> Table:
    """Every factor has its own code, scaled to -1..1; then come constant codes."""
    grid = np.stack(np.unravel_index(np.arange(np.prod(factor_sizes)), factor_sizes), axis=1).astype(float)
    codes = grid / np.maximum(np.array(factor_sizes) - 1, 1) * 2 - 1
    return Table(np.concatenate([codes, np.full((len(codes), num_dead), 0.25)], axis=1), np.array(factor_sizes))
