"""Number formats of a training: what convolutions compute in. Parameters and what follows from losses are float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISIONS = ("fp32", "tf32", "bf16", "fp16")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
# The usual 65536 makes the first updates overflow, which would count as skipped.
_FIRST_SCALE = 4096.0


def check_precision(precision: str, device_type: str) -> None:
    """Refuse a precision in which the device's convolutions are unusable.

    Args:
        precision: one of `PRECISIONS`.
        device_type: such as "cpu" or "cuda".

    Raises:
        ValueError: it is fp16 on a CPU, where the gradient of a convolution takes seconds.
    """
    if precision == "fp16" and device_type == "cpu":
        raise ValueError("precision fp16 is for graphics cards and the networks are on the CPU: take bf16 or fp32")


def half_precision(precision: str, device_type: str) -> torch.autocast:
    """Context in which convolutions run in bfloat16 or float16 if `precision` says so, on float32 parameters.

    Args:
        precision: one of `PRECISIONS`.
        device_type: such as "cpu" or "cuda".
    """
    # Weights are scaled before use, so that no cast of one could be used twice.
    return torch.autocast(
        device_type, _HALF.get(precision, torch.bfloat16), enabled=precision in _HALF, cache_enabled=False
    )


@contextmanager
def convolution_precision(precision: str) -> Iterator[None]:
    """Context in which float32 convolutions on CUDA round their factors to TF32, unless `precision` is "fp32"."""
    settings: Any = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = settings.fp32_precision
    settings.fp32_precision = "ieee" if precision == "fp32" else "tf32"
    try:
        yield
    finally:
        settings.fp32_precision = before


def loss_scaler(precision: str, device_type: str) -> torch.amp.GradScaler:
    """What scales the losses of fp16, whose small gradients would be 0 otherwise; it does nothing in the others.

    Args:
        precision: one of `PRECISIONS`.
        device_type: such as "cpu" or "cuda".
    """
    return torch.amp.GradScaler(device_type, init_scale=_FIRST_SCALE, enabled=precision == "fp16")
