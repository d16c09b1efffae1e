"""What a training shows of its codes: sheets of labelled sweeps with masks, and numbers for the logs."""

from __future__ import annotations

import importlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..attach import AttachedGenerator, attachment_of, constriction_layers
from ..files import append_line
from ..images import save_png
from ..pictures.sweeps import sweep_codes


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


def write_numbers(numbers: Mapping[str, float], folder: Path, step: int) -> None:
    """Append a line to `stats.jsonl`, and show the numbers in TensorBoard where that is installed.

    Args:
        numbers: what to show, by name.
        folder: where both lie; it has to exist.
        step: number of the training step.
    """
    append_line(folder / "stats.jsonl", json.dumps({"step": step, **numbers}))
    if importlib.util.find_spec("tensorboard") is not None:
        with importlib.import_module("torch.utils.tensorboard").SummaryWriter(folder) as writer:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)


@torch.no_grad()
def draw_sheet(generator: nn.Module, path: Path) -> None:
    """Sweep every code of one fixed z, a row each with its mask at the end, labelled by code, layer and gain.

    A generator whose images are not finite gets a warning in place of the sheet: the training is not ours to end.

    Args:
        generator: attached.
        path: the PNG file to write.
    """
    record = attachment_of(generator)
    view = AttachedGenerator(generator).eval()
    names = [
        layer for layer, (start, stop) in zip(record.layers, record.groups(), strict=True) for _ in range(start, stop)
    ]
    labels = [
        f"code {code}\n{name}\ngain {gain:.2f}"
        for code, (name, gain) in enumerate(zip(names, gains(generator), strict=True))
    ]
    try:
        sweep = sweep_codes(view, view.z.new_zeros(record.num_codes))
    except ValueError as error:
        warnings.warn(f"{path} is not drawn: {error}", stacklevel=2)
    else:
        save_png(sweep.sheet(labels), path)
