"""A training small enough for tests."""

from __future__ import annotations

import torch

from sc_layers.models import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    Recognizer,
    RecognizerConfig,
    parse_module_list,
)
from sc_layers.training import TrainingConfig, TrainingState
from sc_layers.training.processes import Processes

TINY = TrainingConfig(
    total_kimg=0.064, batch=8, batch_per_pass=4, r1_gamma=1.0, d_reg_interval=2, tick_kimg=0.016, snapshot_kimg=0.032
)


def tiny_model(model: str) -> TrainingConfig:
    """The settings of one of the models."""
    return TINY.replace(model=model, latents="normal" if model == "ib_gan" else TINY.latents)


_MODULES = "[Const-8, ResConv-up-1, C_spgroup-2-2, Noise-1, ResConv-up-1, C_global-1, Conv-up-1]"
MASKED_LAST = "[Const-8, ResConv-up-1, C_global-1, Noise-1, ResConv-up-1, C_spgroup-2-2, Conv-up-1]"
# Of a generator with masks at the last level. The coarse one joins within three steps: none of its range, some, all.
JOINING = TINY.replace(unlock_kimg=0.006, overlap_weight=0.5, reader_noise=0.2)


def tiny_state(
    config: TrainingConfig = TINY, processes: Processes | None = None, modules: str = _MODULES
) -> TrainingState:
    """Networks of 32x32 colour images and 3 codes, at the start of their training."""
    shape = {"resolution": 32, "num_channels": 3, "fmap_base": 16, "fmap_min": 4, "fmap_max": 8}
    recognizer = RecognizerConfig(num_codes=3, z_dim=5 if config.model == "ib_gan" else None, **shape)
    torch.manual_seed(config.seed)
    return TrainingState.create(
        config,
        Generator(GeneratorConfig(module_list=parse_module_list(modules), **shape)),
        Discriminator(DiscriminatorConfig(**shape)),
        Recognizer(recognizer) if config.model != "gan" else None,
        processes,
    )
