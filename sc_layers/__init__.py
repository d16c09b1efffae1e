"""Spatial Constriction, Perceptual Simplicity and Traversal Perceptual Length for StyleGAN2-style code bases."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "SpatialConstriction": "layers",
    "SoftmaxConstriction": "layers",
    "PerceptualSimplicityLoss": "losses",
    "perceptual_simplicity_loss": "losses",
    "load_network": "checkpoints",
    "save_network": "checkpoints",
    "CheckpointError": "checkpoints",
    "NetworkRecord": "checkpoints",
    "UntrustedCheckpointError": "checkpoints",
    "attach_spatial_constriction": "attach",
    "codes_of": "attach",
    "detach_spatial_constriction": "attach",
    "masks_of": "attach",
    "traverse": "attach",
    "with_codes": "attach",
    "traversal_perceptual_length": "metrics.traversal_length",
    "TraversalLengthHook": "metrics.traversal_hook",
}
__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from .attach import attach_spatial_constriction as attach_spatial_constriction
    from .attach import codes_of as codes_of
    from .attach import detach_spatial_constriction as detach_spatial_constriction
    from .attach import masks_of as masks_of
    from .attach import traverse as traverse
    from .attach import with_codes as with_codes
    from .checkpoints import load_network as load_network
    from .checkpoints import save_network as save_network
    from .checkpoints.errors import CheckpointError as CheckpointError
    from .checkpoints.errors import UntrustedCheckpointError as UntrustedCheckpointError
    from .checkpoints.networks import NetworkRecord as NetworkRecord
    from .layers import SoftmaxConstriction as SoftmaxConstriction
    from .layers import SpatialConstriction as SpatialConstriction
    from .losses import PerceptualSimplicityLoss as PerceptualSimplicityLoss
    from .losses import perceptual_simplicity_loss as perceptual_simplicity_loss
    from .metrics.traversal_hook import TraversalLengthHook as TraversalLengthHook
    from .metrics.traversal_length import traversal_perceptual_length as traversal_perceptual_length


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
