"""Classes that the sample of persistent objects was made of."""

from __future__ import annotations

import io
import pickle
from typing import Any

import torch
from torch import Tensor, nn

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
    """A pickle of persistent networks, those of the sample unless others are given."""
    return io.BytesIO(pickle.dumps(samples.persistence_dict() if content is None else content, 4))
