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
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch

from .grid_sampling import grid_sample


def enabled() -> bool:
    """Whether the environment allows repairs."""
    return os.environ.get("SC_LAYERS_COMPAT", "1") != "0"


def provide_modules() -> None:
    """Stand-ins for what NVlabs' code imports and no longer comes with setuptools (since 81) or Python (since 3.12)."""
    if not enabled():
        return
    if importlib.util.find_spec("pkg_resources") is None:
        _provide("pkg_resources", parse_version=torch.torch_version.TorchVersion)
    if importlib.util.find_spec("distutils") is None:
        _provide("distutils")
        _provide("distutils.util", strtobool=_strtobool)


def _provide(name: str, **members: Any) -> None:
    stand_in = ModuleType(name, "Stand-in for a module that is shipped no longer.")
    vars(stand_in).update(members)
    stand_in.__spec__ = importlib.util.spec_from_loader(name, loader=None)
    sys.modules[name] = stand_in


TRUE, FALSE = ("y", "yes", "t", "true", "on", "1"), ("n", "no", "f", "false", "off", "0")


def _strtobool(value: str) -> int:
    if value.lower() not in TRUE + FALSE:
        raise ValueError(f"expected one of {', '.join(TRUE + FALSE)}, got {value!r}")
    return int(value.lower() in TRUE)


PluginLoader = Callable[..., Any]


def importable(get_plugin: PluginLoader) -> PluginLoader:
    """Decorates NVlabs' `custom_ops.get_plugin`, which imports by its name what PyTorch has compiled and loaded.

    Extensions made with pybind11 3, which PyTorch has by now, are not to be found so: the import fails, and everything
    runs without the plugins. A plugin that failed fails at once from then on, with the same words: stylegan2-ada would
    try to build `upfirdn2d_plugin` at every call.

    Args:
        get_plugin: takes the name of a module and what it is made of, compiles and imports it.

    Returns:
        The same with the failures mended; `get_plugin` itself where it has been decorated before.
    """
    if not enabled() or hasattr(get_plugin, "__wrapped__"):
        return get_plugin
    failures: dict[str, str] = {}

    @functools.wraps(get_plugin)
    def get_importable(module_name: str, *args: Any, **options: Any) -> Any:
        if module_name in failures:
            raise RuntimeError(failures[module_name])
        try:
            with _replaced_build(_registering):
                return get_plugin(module_name, *args, **options)
        except Exception as error:
            failures[module_name] = f"{type(error).__name__}: {error}"
            raise

    return get_importable


def _registering(load: PluginLoader) -> PluginLoader:
    def load_and_register(name: str, *args: Any, **options: Any) -> Any:
        module = load(name, *args, **options)
        sys.modules.setdefault(name, module)
        return module

    return load_and_register


@contextmanager
def _replaced_build(replacement: Callable[[PluginLoader], PluginLoader]) -> Iterator[None]:
    from torch.utils import cpp_extension

    original = cpp_extension.load
    cpp_extension.load = replacement(original)
    try:
        yield
    finally:
        cpp_extension.load = original


def repair_gradients(conv2d_gradfix: Any, grid_sample_gradfix: Any) -> None:
    """The two modules of stylegan2-ada are for PyTorch 1.7 to 1.9; with any other they warn and turn themselves off.

    Convolutions: off is right today, without words. PyTorch's have all derivatives and spare those of weights that
    nobody asks for, which `no_weight_gradients` is about. Sampling: ours, with the second derivative that R1 needs.

    Args:
        conv2d_gradfix, grid_sample_gradfix: the modules of that name in `torch_utils.ops`, changed in place.
    """
    if enabled():
        conv2d_gradfix._should_use_custom_op = _without_own_operator
        grid_sample_gradfix.grid_sample = grid_sample


def repair_sampling(grid_sample_gradfix: Any) -> None:
    """Forks of the first stylegan3 call an operator as it was before PyTorch 1.12: R1 with augmentation dies.

    NVlabs' own module has known newer ones since, and is left alone.

    Args:
        grid_sample_gradfix: the module of that name in `torch_utils.ops`, changed in place.
    """
    if enabled() and not hasattr(grid_sample_gradfix, "_use_pytorch_1_12_api"):
        grid_sample_gradfix.grid_sample = grid_sample


def repair_loaded_gradients() -> None:
    """The same in rosinality's modules, as far as they are loaded: `--augment` dies, and convolutions warn.

    `non_leaking` calls an operator of PyTorch as it was before 1.11, and gets a tuple that cannot be called.
    """
    repairs = {
        ("non_leaking", "grid_sample"): grid_sample,
        ("op.conv2d_gradfix", "could_use_op"): _without_own_operator,
    }
    for (name, function), repaired in repairs.items():
        if enabled() and name in sys.modules:
            setattr(sys.modules[name], function, repaired)


def _without_own_operator(input: torch.Tensor) -> bool:
    return False


def repair_matrix_root() -> None:
    """NVlabs' FID takes a pair from `scipy.linalg.sqrtm(..., disp=False)`; SciPy 1.18 returns the root alone."""
    if not enabled() or importlib.util.find_spec("scipy") is None:
        return
    linalg = importlib.import_module("scipy.linalg")
    original = linalg.sqrtm
    if "disp" in inspect.signature(original).parameters:
        return

    @functools.wraps(original)
    def sqrtm(matrix: Any, disp: bool = True, **options: Any) -> Any:
        root = original(matrix, **options)
        if disp:
            return root
        return root, linalg.norm(root @ root - matrix) ** 2 / linalg.norm(matrix)

    linalg.sqrtm = sqrtm  # type: ignore[attr-defined]


class _SamplerWithDataSource(torch.utils.data.Sampler[Any]):
    def __init__(self, data_source: Any = None) -> None:
        pass


def repair_sampler(sampler: type) -> None:
    """NVlabs' `misc.InfiniteSampler` hands its data set to a base class that takes no argument any more.

    Args:
        sampler: that class; where the failure is found, it gets a base class that takes one.
    """
    takes_argument = torch.utils.data.Sampler.__init__ is not object.__init__
    if enabled() and not takes_argument and sampler.__bases__ == (torch.utils.data.Sampler,):
        sampler.__bases__ = (_SamplerWithDataSource,)


def clear_unset(*inputs: torch.Tensor) -> None:
    """NVlabs' loops send memory that was never set through G in training mode; not-a-number there stays in averages.

    That of w in stylegan2-ada, those of batch normalisation in projected-gan's FastGAN.

    Args:
        inputs: latents and labels of that pass, set to 0 in place.
    """
    if enabled():
        for tensor in inputs:
            tensor.zero_()


def repair_betas(optimizer_options: MutableMapping[str, Any]) -> None:
    """NVlabs' `betas=[0, 0.99]`: Adam no longer takes an integer beside a float.

    Args:
        optimizer_options: arguments of the optimiser, changed in place where Adam refuses them.
    """
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
    """rosinality calls torchvision's `save_image(..., range=...)`; the argument is named `value_range` now.

    Args:
        utils: the module `torchvision.utils`, changed in place.
    """
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
    with _replaced_build(lambda load: lambda *args, **options: None):
        yield


def repair_similarity() -> None:
    """rosinality's `lpips` imports scikit-image's `measure.compare_ssim`, now `metrics.structural_similarity`."""
    if not enabled() or importlib.util.find_spec("skimage") is None:
        return
    measure, metrics = (importlib.import_module(f"skimage.{name}") for name in ("measure", "metrics"))
    if not hasattr(measure, "compare_ssim"):
        measure.compare_ssim = metrics.structural_similarity  # type: ignore[attr-defined]


def repair_percentile(numpy: Any) -> None:
    """rosinality's `ppl.py` calls `percentile(..., interpolation=)`; since numpy 2.4 it is `method` alone.

    Args:
        numpy: the module, changed in place.
    """
    original = numpy.percentile
    if not enabled() or "interpolation" in inspect.signature(original).parameters:
        return

    @functools.wraps(original)
    def percentile(*args: Any, interpolation: str | None = None, **kwargs: Any) -> Any:
        if interpolation is not None:
            kwargs["method"] = interpolation
        return original(*args, **kwargs)

    numpy.percentile = percentile
