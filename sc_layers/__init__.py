"""Spatial Constriction, Perceptual Simplicity and Traversal Perceptual Length for StyleGAN2-style code bases."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# In a checkout `cuda_ops/` and `integrations/` lie beside this folder, and an installed package has them inside it.
# Whoever imports `sc_layers` from the root of a checkout gets the checkout, whole.
if not (Path(__file__).parent / "cuda_ops").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

_PUBLIC = {
    "SpatialConstriction": "layers",
    "SoftmaxConstriction": "layers",
    "PerceptualSimplicityLoss": "losses",
    "perceptual_simplicity_loss": "losses",
    "load_network": "checkpoints",
    "save_network": "checkpoints",
    "CheckpointError": "legacy.errors",
    "NetworkRecord": "legacy.networks",
    "UntrustedCheckpointError": "legacy.errors",
    "attach_spatial_constriction": "attach",
    "traversal_perceptual_length": "traversal",
    "TraversalLengthHook": "traversal",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .attach import attach_spatial_constriction as attach_spatial_constriction
    from .checkpoints import load_network as load_network
    from .checkpoints import save_network as save_network
    from .layers import SoftmaxConstriction as SoftmaxConstriction
    from .layers import SpatialConstriction as SpatialConstriction
    from .legacy.errors import CheckpointError as CheckpointError
    from .legacy.errors import UntrustedCheckpointError as UntrustedCheckpointError
    from .legacy.networks import NetworkRecord as NetworkRecord
    from .losses import PerceptualSimplicityLoss as PerceptualSimplicityLoss
    from .losses import perceptual_simplicity_loss as perceptual_simplicity_loss
    from .traversal import TraversalLengthHook as TraversalLengthHook
    from .traversal import traversal_perceptual_length as traversal_perceptual_length


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
