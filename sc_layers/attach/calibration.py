"""Where the layers of an attached generator start: from the features that they will see."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from ..layers import SpatialConstriction
from .adapters.base import Adapter, untouched
from .attachment import Attachment
from .hooks import LAYER, observe

SAMPLES = 8
SEED = 0
# Standard deviation of the gates' logits. With logits near 0, as small features give them, every mask is one faint bump
# of at most 1/16 in the middle; at 4, rectangles have edges, and codes learn regions of their own.
LOGITS_SPREAD = 4.0


class FeatureStatistics(NamedTuple):
    """Typical planes of a layer's features."""

    mean: Tensor  # [C], of the planes' means
    std: Tensor  # [C], of their standard deviations
    pooled: Tensor  # root of the mean square of all planes' means


def calibrate(generator: nn.Module, adapter: Adapter, record: Attachment) -> None:
    """Let the styles of all layers start at what features are like, and their gates in a range where masks have edges.

    A code of 0 then replaces a plane by one of typical mean and contrast, which harms a picture little, so that nothing
    drives the gain of the masks away from where the codes become visible. The start itself is the identity in any case.

    Args:
        generator: attached, trained.
        adapter: its conventions.
        record: what `attachment_of(generator)` gives.
    """
    copies = adapter.copies(record)
    running = [generator.get_submodule(f"{paths[-1]}.{LAYER}") for paths in copies]
    seen: dict[int, Tensor] = {}
    with untouched(generator), ExitStack() as stack:
        for handle in observe(running, seen.__setitem__):
            stack.callback(handle.remove)
        adapter.run_on(generator, _latents(generator, record))
    for index, paths in enumerate(copies):
        statistics = _statistics(seen[index])
        source = cast(SpatialConstriction, running[index])
        _start_at(source, statistics)
        for path in paths[:-1]:
            generator.get_submodule(f"{path}.{LAYER}").load_state_dict(source.state_dict())


def _latents(generator: nn.Module, record: Attachment) -> Tensor:
    """z [N, z_dim], the same in every run and on every device."""
    source = torch.Generator().manual_seed(SEED)
    return torch.randn(SAMPLES, record.z_dim, generator=source).to(next(generator.parameters()).device)


def _statistics(features: Tensor) -> FeatureStatistics:
    """Of features [N, C, H, W] of any floating dtype."""
    std, mean = torch.std_mean(features.float(), dim=(2, 3), correction=0)
    return FeatureStatistics(mean.mean(0), std.mean(0), mean.square().mean().sqrt())


@torch.no_grad()
def _start_at(layer: SpatialConstriction, statistics: FeatureStatistics) -> None:
    mean, std, pooled = (value.to(layer.style_bias) for value in statistics)
    layer.style_weight.mul_(std)
    layer.style_bias[:, 0] = std - 1
    layer.style_bias[:, 1] = mean
    if pooled > 0:
        for weight in (layer.gate_weight_h, layer.gate_weight_w):
            weight.mul_(LOGITS_SPREAD / pooled)
