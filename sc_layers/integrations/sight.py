"""What a training shows of its codes: sheets of labelled sweeps with masks, and numbers for the logs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._optional import require
from ..attach import AttachedGenerator, attachment_of, constriction_layers
from ..images import save_png
from ..pictures.sweeps import sweep_codes

_LABEL_WIDTH = 110  # pixels
_LABEL_HEIGHT = 14


def gains(generator: nn.Module) -> Tensor:
    """Gain of every code's mask, [K] in [0, 1]; ones where layers have none.

    Args:
        generator: attached.
    """
    layers = constriction_layers(generator)
    found = [(layer.gain(), layer) for layer in layers]
    return torch.cat([layer.style_bias.new_ones(layer.num_codes) if gain is None else gain for gain, layer in found])


def report_codes(generator: nn.Module, errors: Tensor, report: Callable[[str, Any], Any]) -> None:
    """Log what the recogniser makes of every code, and how far its mask is open.

    Args:
        generator: attached.
        errors: squared errors of the recogniser [B, K], 1 for a code of which it sees nothing.
        report: called with a name and values.
    """
    for code, (error, gain) in enumerate(zip(errors.unbind(1), gains(generator).detach(), strict=True)):
        report(f"SC/error/{code:02d}", error)
        report(f"SC/gain/{code:02d}", gain)


@torch.no_grad()
def draw_sheet(generator: nn.Module, path: Path) -> None:
    """Sweep every code of one fixed z, a row each with its mask at the end, labelled by code, layer and gain.

    Args:
        generator: attached.
        path: the PNG file to write.
    """
    record = attachment_of(generator)
    view = AttachedGenerator(generator).eval()
    picture = sweep_codes(view, view.z.new_zeros(record.num_codes)).picture()
    height = picture.shape[1] // record.num_codes
    names = [
        layer for layer, (start, stop) in zip(record.layers, record.groups(), strict=True) for _ in range(start, stop)
    ]
    texts = [f"{code} {name} {gain:.2f}" for code, (name, gain) in enumerate(zip(names, gains(generator), strict=True))]
    margin = torch.cat([_label(text, height, picture.shape[0]) for text in texts], dim=1)
    save_png(torch.cat([margin, picture], dim=2), path)


def _label(text: str, height: int, channels: int) -> Tensor:
    """White text on black, uint8 [channels, height, _LABEL_WIDTH]; cut where it is longer."""
    draw = require("PIL.ImageDraw", "train")
    image = require("PIL.Image", "train").new("L", (_LABEL_WIDTH, height))
    draw.Draw(image).text((2, max(height - _LABEL_HEIGHT, 0) // 2), text, fill=255)
    return torch.from_numpy(np.asarray(image).copy()).expand(channels, -1, -1)
