"""Repairs of what stops the code bases on current Python and PyTorch; each acts only where the failure is found.

Set the environment variable SC_LAYERS_COMPAT=0 to leave everything as it is.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch


def enabled() -> bool:
    return os.environ.get("SC_LAYERS_COMPAT", "1") != "0"


def provide_pkg_resources() -> None:
    """stylegan3 compares versions with `pkg_resources.parse_version`, which setuptools no longer ships."""
    if not enabled() or importlib.util.find_spec("pkg_resources") is not None:
        return
    stand_in = ModuleType("pkg_resources", "Stand-in for a module that setuptools no longer ships.")
    stand_in.parse_version = torch.torch_version.TorchVersion  # type: ignore[attr-defined]
    stand_in.__spec__ = importlib.util.spec_from_loader("pkg_resources", loader=None)
    sys.modules["pkg_resources"] = stand_in


class _SamplerWithDataSource(torch.utils.data.Sampler[Any]):
    def __init__(self, data_source: Any = None) -> None:
        pass


def repair_sampler(sampler: type) -> None:
    """NVlabs' `misc.InfiniteSampler` hands its data set to a base class that takes no argument any more."""
    takes_argument = torch.utils.data.Sampler.__init__ is not object.__init__
    if enabled() and not takes_argument and sampler.__bases__ == (torch.utils.data.Sampler,):
        sampler.__bases__ = (_SamplerWithDataSource,)


def clear_unset(latent: torch.Tensor) -> None:
    """stylegan2-ada sends memory that was never set through G in training mode; not-a-number there stays in w_avg."""
    if enabled():
        latent.zero_()


def repair_betas(optimizer_options: MutableMapping[str, Any]) -> None:
    """NVlabs' `betas=[0, 0.99]`: Adam no longer takes an integer beside a float."""
    betas = optimizer_options.get("betas")
    if enabled() and betas is not None and not _adam_takes(betas):
        optimizer_options["betas"] = [float(beta) for beta in betas]


def _adam_takes(betas: Any) -> bool:
    try:
        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], betas=betas)
    except (ValueError, TypeError):
        return False
    return True


def allow_argument_namespace() -> None:
    """rosinality's checkpoints hold an `argparse.Namespace`, which `torch.load` refuses by default; it is harmless."""
    if enabled():
        torch.serialization.add_safe_globals([argparse.Namespace])


def repair_save_image(utils: Any) -> None:
    """rosinality calls torchvision's `save_image(..., range=...)`; the argument is named `value_range` now."""
    if not enabled() or "range" in inspect.signature(utils.make_grid).parameters:
        return
    original = utils.save_image

    @functools.wraps(original)
    def save_image(*args: Any, **kwargs: Any) -> None:
        if "range" in kwargs:
            kwargs["value_range"] = kwargs.pop("range")
        original(*args, **kwargs)

    utils.save_image = save_image


@contextmanager
def without_cuda_builds() -> Iterator[None]:
    """rosinality's `model` compiles CUDA operators when imported, which no CPU calls: skip that without a GPU."""
    if not enabled() or torch.cuda.is_available():
        yield
        return
    from torch.utils import cpp_extension

    original = cpp_extension.load
    cpp_extension.load = lambda *args, **options: None
    try:
        yield
    finally:
        cpp_extension.load = original


def repair_similarity() -> None:
    """rosinality's `lpips` imports scikit-image's `measure.compare_ssim`, now `metrics.structural_similarity`."""
    if not enabled() or importlib.util.find_spec("skimage") is None:
        return
    measure, metrics = (importlib.import_module(f"skimage.{name}") for name in ("measure", "metrics"))
    if not hasattr(measure, "compare_ssim"):
        measure.compare_ssim = metrics.structural_similarity  # type: ignore[attr-defined]


def repair_percentile(numpy: Any) -> None:
    """rosinality's `ppl.py` calls `percentile(..., interpolation=)`; since numpy 2.4 it is `method` alone."""
    original = numpy.percentile
    if not enabled() or "interpolation" in inspect.signature(original).parameters:
        return

    @functools.wraps(original)
    def percentile(*args: Any, interpolation: str | None = None, **kwargs: Any) -> Any:
        if interpolation is not None:
            kwargs["method"] = interpolation
        return original(*args, **kwargs)

    numpy.percentile = percentile
