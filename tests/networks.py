"""Small networks in files, for tests of commands and of model selection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from sc_layers.checkpoints import save_network
from sc_layers.models import Generator, Recognizer
from sc_layers.models.discriminator import RecognizerConfig
from sc_layers.models.generator import GeneratorConfig

MODULES = "[Const-4, ResConv-up-1, C_spgroup-2-2, Noise-1, ResConv-up-1, ResConv-up-1, C_spgroup-2-1]"
NUM_CODES = 3


def small_networks(seed: int = 0) -> dict[str, Any]:
    """Generator and recogniser of grey 32x32 images with 3 codes, randomly initialised."""
    torch.manual_seed(seed)
    shared = {"resolution": 32, "num_channels": 1, "fmap_base": 32, "fmap_min": 4, "fmap_max": 8}
    generator = Generator(GeneratorConfig(module_list=MODULES, **shared))
    recognizer = Recognizer(RecognizerConfig(num_codes=NUM_CODES, **shared))
    return {"G_ema": generator, "Q": recognizer}


def save_small_networks(path: Path, seed: int = 0, **meta: Any) -> Path:
    """The same in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_network(path, **small_networks(seed), meta={"training": {"latents": "normal"}, **meta})
    return path
