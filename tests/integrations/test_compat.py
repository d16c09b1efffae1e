from __future__ import annotations

import argparse
import importlib.util
import inspect
import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.cpp_extension

from sc_layers.integrations import compat


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


def test_pkg_resources_compares_versions_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    compat.provide_pkg_resources()
    parse_version = sys.modules["pkg_resources"].parse_version
    assert parse_version("2.10.1+cpu") >= parse_version("1.11.0a")
    assert not parse_version("1.9.0") >= parse_version("1.11.0a")


def test_an_existing_pkg_resources_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    existing = SimpleNamespace()
    monkeypatch.setitem(sys.modules, "pkg_resources", existing)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    compat.provide_pkg_resources()
    assert sys.modules["pkg_resources"] is existing


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
    latent = torch.full((2, 3), float("nan"))
    compat.clear_unset(latent)
    assert torch.equal(latent, torch.zeros(2, 3))


def test_everything_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_LAYERS_COMPAT", "0")
    monkeypatch.delitem(sys.modules, "pkg_resources", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    compat.provide_pkg_resources()
    assert "pkg_resources" not in sys.modules
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
