from __future__ import annotations

import argparse
import importlib
import importlib.util
import inspect
import io
import os
import shutil
import sys
import warnings
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.cpp_extension
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sc_layers.integrations import compat
from sc_layers.integrations.grid_sampling import grid_sample


def sampler_of_nvlabs() -> type:
    """A class as NVlabs' `misc.InfiniteSampler`."""

    class Sampler(torch.utils.data.Sampler):  # type: ignore[type-arg]
        def __init__(self, dataset: Any) -> None:
            super().__init__(dataset)
            self.dataset = dataset

    return Sampler


def test_the_sampler_can_be_made_again() -> None:
    sampler = sampler_of_nvlabs()
    compat.repair_sampler(sampler)
    assert sampler([1, 2]).dataset == [1, 2]


def test_betas_are_touched_only_where_adam_refuses_them() -> None:
    refused = {"betas": [0, 0.99]}
    compat.repair_betas(refused)
    assert [type(beta) for beta in refused["betas"]] == [float, float]
    taken = {"betas": (0.0, 0.99)}
    compat.repair_betas(taken)
    assert taken == {"betas": (0.0, 0.99)}
    compat.repair_betas({})


@pytest.fixture
def without_old_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where neither Python nor setuptools has what NVlabs' code imports."""
    for name in ("pkg_resources", "distutils", "distutils.util"):
        monkeypatch.setitem(sys.modules, name, None)  # restored after the test, whatever it puts there
        del sys.modules[name]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.usefixtures("without_old_modules")
def test_pkg_resources_compares_versions_where_it_is_missing() -> None:
    compat.provide_modules()
    parse_version = importlib.import_module("pkg_resources").parse_version
    assert parse_version("2.10.1+cpu") >= parse_version("1.11.0a")
    assert not parse_version("1.9.0") >= parse_version("1.11.0a")


@pytest.mark.usefixtures("without_old_modules")
def test_distutils_reads_answers_where_it_is_missing() -> None:
    compat.provide_modules()
    strtobool = importlib.import_module("distutils.util").strtobool
    assert [strtobool(answer) for answer in ("Yes", "1", "off", "f")] == [1, 1, 0, 0]
    with pytest.raises(ValueError, match="'perhaps'"):
        strtobool("perhaps")


def test_existing_modules_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    existing = {"pkg_resources": ModuleType("pkg_resources"), "distutils": ModuleType("distutils")}
    for name, module in existing.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    compat.provide_modules()
    assert {name: sys.modules[name] for name in existing} == existing


PLUGIN = """#include <pybind11/pybind11.h>
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("twice", [](int number) { return 2 * number; }); }
"""


def get_plugin_of_nvlabs(module_name: str, sources: list[str], **options: Any) -> ModuleType:
    """What NVlabs' `custom_ops.get_plugin` comes down to."""
    torch.utils.cpp_extension.load(name=module_name, sources=sources, **options)
    return importlib.import_module(module_name)


@pytest.mark.slow
def test_a_compiled_plugin_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = torch.utils.cpp_extension.get_cxx_compiler()
    if shutil.which(compiler) is None:
        pytest.skip(f"needs a C++ compiler, and there is no {compiler}")
    monkeypatch.setenv("PATH", os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))  # ninja
    (tmp_path / "toy.cpp").write_text(PLUGIN)
    monkeypatch.setitem(sys.modules, "toy_plugin", None)
    del sys.modules["toy_plugin"]
    arguments = {"sources": [str(tmp_path / "toy.cpp")], "build_directory": str(tmp_path)}
    with pytest.raises(ModuleNotFoundError, match="toy_plugin"):  # else PyTorch needs no repair any more
        get_plugin_of_nvlabs("toy_plugin", **arguments)
    assert compat.importable(get_plugin_of_nvlabs)("toy_plugin", **arguments).twice(21) == 42


def test_a_plugin_that_cannot_be_built_fails_at_once_the_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[str] = []

    def load(name: str, sources: list[str]) -> None:
        attempts.append(name)
        raise OSError("no nvcc")

    monkeypatch.setattr(torch.utils.cpp_extension, "load", load)
    get_plugin = compat.importable(get_plugin_of_nvlabs)
    with pytest.raises(OSError, match="no nvcc"):
        get_plugin("toy_plugin", sources=[])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="OSError: no nvcc"):
            get_plugin("toy_plugin", sources=[])
    assert attempts == ["toy_plugin"]
    assert torch.utils.cpp_extension.load is load


def test_a_plugin_loader_is_repaired_once() -> None:
    repaired = compat.importable(get_plugin_of_nvlabs)
    assert repaired is not get_plugin_of_nvlabs
    assert compat.importable(repaired) is repaired


def gradfix_of_stylegan2_ada() -> tuple[SimpleNamespace, SimpleNamespace]:
    def refuse(input: Any = None) -> bool:
        warnings.warn("not supported on this PyTorch", stacklevel=1)
        return False

    def conv2d(input: Tensor, weight: Tensor) -> Tensor:
        assert not convolution._should_use_custom_op(input)
        return torch.nn.functional.conv2d(input, weight)

    def sample(input: Tensor, grid: Tensor) -> Tensor:
        refuse()
        return torch.nn.functional.grid_sample(input, grid, align_corners=False)

    convolution = SimpleNamespace(_should_use_custom_op=refuse, conv2d=conv2d)
    return convolution, SimpleNamespace(_should_use_custom_op=refuse, grid_sample=sample)


@pytest.mark.filterwarnings("error")
def test_gradients_of_stylegan2_ada_are_repaired_without_a_word() -> None:
    convolution, sampling = gradfix_of_stylegan2_ada()
    compat.repair_gradients(convolution, sampling)
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 3, 3, 2, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradgradcheck(convolution.conv2d, (images, weight))
    assert torch.autograd.gradgradcheck(lambda images: sampling.grid_sample(images, grid), images)


def test_sampling_in_forks_of_the_first_stylegan3_is_repaired_and_of_newer_ones_left_alone() -> None:
    def dies(input: Tensor, grid: Tensor) -> Tensor:
        raise TypeError("'tuple' object is not callable")

    first, newer = SimpleNamespace(grid_sample=dies), SimpleNamespace(grid_sample=dies, _use_pytorch_1_12_api=True)
    compat.repair_sampling(first)
    compat.repair_sampling(newer)
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    grid = torch.rand(1, 3, 3, 2, dtype=torch.float64) * 2 - 1
    assert torch.autograd.gradgradcheck(lambda images: first.grid_sample(images, grid), images)
    assert newer.grid_sample is dies


def test_gradients_of_loaded_modules_of_rosinality_are_repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    compat.repair_loaded_gradients()  # nothing is loaded
    non_leaking, gradfix = ModuleType("non_leaking"), ModuleType("op.conv2d_gradfix")
    for module in (non_leaking, gradfix):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("SC_LAYERS_COMPAT", "0")
    compat.repair_loaded_gradients()
    assert not hasattr(non_leaking, "grid_sample")
    monkeypatch.delenv("SC_LAYERS_COMPAT")
    compat.repair_loaded_gradients()
    assert non_leaking.grid_sample is grid_sample
    assert not gradfix.could_use_op(torch.zeros(1))


class MasksOfConvolutions(TorchDispatchMode):
    """Which of the gradients of images, weight and bias each backward pass of a convolution computes."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[list[bool]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(args[-1])
        return func(*args, **(kwargs or {}))


def test_convolutions_spare_the_gradients_of_weights_that_nobody_asks_for() -> None:
    images, weight = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(3, 2, 3, 3, requires_grad=True)
    output = torch.nn.functional.conv2d(images, weight).square().sum()
    with MasksOfConvolutions() as mode:
        torch.autograd.grad(output, images, create_graph=True)
    assert mode.masks == [[True, False, False]]


def test_the_root_of_a_matrix_comes_in_a_pair_where_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="NVlabs' FID needs SciPy")
    matrix = np.array([[2.0, 1.0], [1.0, 3.0]])
    root = linalg.sqrtm(matrix)
    monkeypatch.setattr(linalg, "sqrtm", lambda A: root if A is matrix else None)
    compat.repair_matrix_root()
    assert linalg.sqrtm(matrix) is root
    first, error = linalg.sqrtm(matrix, disp=False)
    assert first is root
    assert error < 1e-12


def test_an_old_scipy_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    linalg = pytest.importorskip("scipy.linalg", reason="NVlabs' FID needs SciPy")
    monkeypatch.setattr(linalg, "sqrtm", old := lambda A, disp=True: A)
    compat.repair_matrix_root()
    assert linalg.sqrtm is old


def test_a_checkpoint_with_an_argument_namespace_loads_by_weights_only() -> None:
    compat.allow_argument_namespace()
    file = io.BytesIO()
    torch.save({"args": argparse.Namespace(size=64)}, file)
    file.seek(0)
    assert torch.load(file, weights_only=True)["args"].size == 64


def test_save_image_takes_the_old_name_of_the_value_range() -> None:
    calls: list[dict[str, Any]] = []
    utils = SimpleNamespace(make_grid=lambda tensor, value_range=None: None)
    utils.save_image = lambda tensor, **options: calls.append(options)
    compat.repair_save_image(utils)
    utils.save_image(None, range=(-1, 1), nrow=2)
    assert calls == [{"value_range": (-1, 1), "nrow": 2}]


def test_similarity_has_its_old_name_too(monkeypatch: pytest.MonkeyPatch) -> None:
    measure, metrics = ModuleType("skimage.measure"), ModuleType("skimage.metrics")
    metrics.structural_similarity = print  # type: ignore[attr-defined]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for name, module in (("skimage", ModuleType("skimage")), (measure.__name__, measure), (metrics.__name__, metrics)):
        monkeypatch.setitem(sys.modules, name, module)
    compat.repair_similarity()
    assert measure.compare_ssim is print
    metrics.structural_similarity = repr  # type: ignore[attr-defined]
    compat.repair_similarity()
    assert measure.compare_ssim is print  # what is there stays


def test_percentile_takes_the_old_name_of_the_method() -> None:
    numpy = SimpleNamespace(percentile=lambda values, q, method="linear": np.percentile(values, q, method=method))
    compat.repair_percentile(numpy)
    values = [1.0, 2.0, 4.0]
    assert numpy.percentile(values, 40, interpolation="lower") == 1
    assert numpy.percentile(values, 40, method="higher") == 2
    assert numpy.percentile(values, 50) == 2
    old = SimpleNamespace(percentile=lambda values, q, interpolation="linear": q)
    before = old.percentile
    compat.repair_percentile(old)
    assert old.percentile is before


def test_an_old_torchvision_is_left_alone() -> None:
    utils = SimpleNamespace(make_grid=lambda tensor, range=None: None, save_image=print)
    compat.repair_save_image(utils)
    assert utils.save_image is print


def test_cuda_code_is_built_only_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.utils.cpp_extension, "load", built := lambda name: name)
    for found in (False, True):
        monkeypatch.setattr(torch.cuda, "is_available", lambda found=found: found)
        with compat.without_cuda_builds():
            assert torch.utils.cpp_extension.load("fused") == ("fused" if found else None)
        assert torch.utils.cpp_extension.load is built


def test_memory_that_was_never_set_is_cleared() -> None:
    latent, label = torch.full((2, 3), float("nan")), torch.full((2, 1), float("nan"))
    compat.clear_unset(latent, label)
    assert torch.equal(latent, torch.zeros(2, 3))
    assert torch.equal(label, torch.zeros(2, 1))


@pytest.mark.usefixtures("without_old_modules")
def test_everything_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_LAYERS_COMPAT", "0")
    compat.provide_modules()
    assert not {"pkg_resources", "distutils"} & sys.modules.keys()
    assert compat.importable(get_plugin_of_nvlabs) is get_plugin_of_nvlabs
    modules = gradfix_of_stylegan2_ada()
    before = [dict(vars(module)) for module in modules]
    compat.repair_gradients(*modules)
    compat.repair_sampling(modules[1])
    assert [vars(module) for module in modules] == before
    betas = {"betas": [0, 0.99]}
    compat.repair_betas(betas)
    assert betas == {"betas": [0, 0.99]}
    sampler = sampler_of_nvlabs()
    compat.repair_sampler(sampler)
    assert sampler.__bases__ == (torch.utils.data.Sampler,)
    utils = SimpleNamespace(make_grid=inspect.signature, save_image=print)
    compat.repair_save_image(utils)
    assert utils.save_image is print
    monkeypatch.setattr(torch.utils.cpp_extension, "load", lambda name: name)
    with compat.without_cuda_builds():
        assert torch.utils.cpp_extension.load("fused") == "fused"
    compat.clear_unset(latent := torch.ones(1))
    assert latent == 1
