"""Reference numbers in tests/data/reference, produced by running the authors' program (see its README.md)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

DATA = Path(__file__).parent / "data" / "reference"


class Golden:
    """One `.npz` of reference numbers: arrays by key, groups of keys by prefix, and the configuration."""

    def __init__(self, path: Path) -> None:
        self.arrays = dict(np.load(path))
        self.config: dict[str, Any] = json.loads(str(self.arrays.pop("config_json", "{}")))

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def numpy(self, key: str) -> np.ndarray:
        return self.arrays[key]

    def group(self, prefix: str) -> dict[str, np.ndarray]:
        """All arrays whose key starts with `prefix`, keyed by the rest."""
        return {key[len(prefix) :]: value for key, value in self.arrays.items() if key.startswith(prefix)}


def load_golden(name: str) -> Golden:
    return Golden(DATA / f"{name}.npz")
