"""What is installed, which path computes, and what to do about each problem; printed for `sc-layers doctor`."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from importlib import metadata

import click
import torch

from .. import __version__
from ..ops import building, loading, reference, schema


class _Report:
    """Prints findings and counts the broken ones."""

    def __init__(self) -> None:
        self.broken = 0

    def line(self, name: str, value: str) -> None:
        click.echo(f"{name + ':':14}{value}")

    def problem(self, name: str, value: str, remedy: str) -> None:
        self.broken += 1
        self.line(name, f"BROKEN: {value}")
        click.echo(f"{'':14}-> {remedy}")


def _package_version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _report_versions(report: _Report) -> None:
    report.line("sc-layers", __version__)
    report.line("python", f"{platform.python_version()} ({sys.executable})")
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
    report.line("torch", f"{torch.__version__} ({cuda}, {torch.get_num_threads()} threads)")
    report.line("machine", f"{platform.system()} {platform.machine()}")


def _report_settings(report: _Report) -> str:
    """Print the environment variables that are set, and return which `impl` is in force."""
    for name in sorted(os.environ):
        if name.startswith("SC_LAYERS_"):
            report.line("setting", f"{name}={os.environ[name]}")
    try:
        return loading.forced_impl("auto")
    except ValueError as error:
        report.problem("setting", str(error), "set SC_LAYERS_IMPL to one of these, or unset it")
        return "auto"


def _report_tools(report: _Report) -> None:
    """Tools are needed only to compile: what is missing is said, and counts as broken where nothing is compiled."""
    try:
        command = building.compiler()
        report.line("compiler", f"{shlex.join(command)}: {building.compiler_version(command)}")
    except building.BuildError as error:
        report.line("compiler", str(error))
    report.line("ninja", _package_version("ninja"))
    folder = building.cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if existing.is_dir() and os.access(existing, os.W_OK):
        report.line("cache", str(folder))
    else:
        report.problem("cache", f"{folder} cannot be written", "name a folder of yours in $SC_LAYERS_CACHE")


def _largest_deviation(device: str) -> float:
    """Largest difference between the two paths on a small input."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 5, 6, 7), (2, 3, 2, 2, 6), (2, 3, 2, 2, 7), (2, 3, 5), (2, 3, 5), (3,)]
    tensors = schema.ConstrictTensors._make(torch.randn(size, generator=generator).to(device) for size in sizes)
    ours = schema.constrict(tensors, *schema.statistics(tensors.x, 1e-8), 1e-8)
    return (ours - reference.constrict(*tensors, 1e-8)).abs().max().item()


def _report_loaded(report: _Report, backend: str, impl: str) -> None:
    deviation = _largest_deviation(backend)
    if not deviation < 1e-4:
        remedy = f"delete {loading.loaded_library(backend)} and run sc-layers doctor --build; if it stays, report it"
        report.problem(backend, f"the fused kernels deviate by {deviation:.1e} from plain PyTorch", remedy)
        return
    isa = f", {loading.cpu_instruction_set()}" if backend == "cpu" else ""
    path = "reference (SC_LAYERS_IMPL), the fused kernels work" if impl == "reference" else "fused"
    report.line(backend, f"{path}{isa}: {loading.loaded_library(backend)}")


def _report_backend(report: _Report, backend: str, impl: str, compile_now: bool) -> None:
    try:
        found = loading.locate(backend)
    except building.BuildError as error:
        report.problem(backend, f"reference path, since {error}", "install what is missing; until then it is slower")
        return
    if found is None and not compile_now:
        report.line(backend, "fused, once compiled: by the first layer that is made, or by sc-layers doctor --build")
        return
    start = time.monotonic()
    try:
        loaded = loading.load(backend)
    except ValueError as error:
        report.problem(backend, str(error), "unset SC_LAYERS_CPU_ISA, or set it to baseline")
        return
    if not loaded:
        remedy = "the compiler's or linker's message above says what is missing; until then it is slower"
        report.problem(backend, f"reference path, since {loading.failure(backend)}", remedy)
        return
    if found is None:
        report.line(backend, f"compiled in {time.monotonic() - start:.1f} s")
    _report_loaded(report, backend, impl)


def diagnose(compile_now: bool) -> bool:
    """Print the report, and return whether nothing is broken.

    Args:
        compile_now: compile the fused kernels if they are not yet.
    """
    report = _Report()
    _report_versions(report)
    impl = _report_settings(report)
    _report_tools(report)
    for backend in loading.backends():
        _report_backend(report, backend, impl, compile_now)
    if "cuda" not in loading.backends():
        report.line("cuda", "no CUDA device that this PyTorch can use")
    return not report.broken
