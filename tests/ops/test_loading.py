"""Which path runs, and what is said where the fused one cannot."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from sc_layers import SpatialConstriction
from sc_layers import functional as F
from sc_layers.ops import loading, schema
from tests.ops.samples import sample_inputs

ROOT = Path(__file__).parents[2]


class _Ran(Exception):
    """The operator was reached."""


@pytest.fixture
def _operator_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise _Ran

    monkeypatch.setattr(schema, "statistics", refuse)
    monkeypatch.setattr(schema, "constrict_layer", refuse)


@pytest.fixture
def no_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine without a compiler and with an empty cache."""
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("SC_LAYERS_CACHE", str(tmp_path))
    monkeypatch.delenv("SC_LAYERS_PREBUILT", raising=False)
    monkeypatch.setattr(loading.building, "PREBUILT", tmp_path)
    for name in ("_loaded", "_failures"):
        monkeypatch.setattr(loading, name, {})
    monkeypatch.setattr(loading, "_warned", set())


@pytest.mark.usefixtures("_operator_raises")
@pytest.mark.parametrize("impl", ["auto", "fused"])
def test_fused_operator_runs_by_default(impl: str) -> None:
    with pytest.raises(_Ran):
        F.constrict(*sample_inputs(), impl=impl)
    with pytest.raises(_Ran):
        SpatialConstriction(3, 4, impl=impl)(torch.randn(1, 3, 4, 4), torch.randn(1, 1))


@pytest.mark.usefixtures("_operator_raises")
def test_reference_runs_when_asked_for() -> None:
    assert F.constrict(*sample_inputs(), impl="reference").shape == (2, 5, 6, 7)


@pytest.mark.usefixtures("_operator_raises")
def test_environment_forces_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FORCED_IMPL", "reference")
    for impl in ("auto", "fused"):
        assert F.constrict(*sample_inputs(), impl=impl).shape == (2, 5, 6, 7)


@pytest.mark.usefixtures("_operator_raises")
def test_environment_forces_the_fused_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FORCED_IMPL", "fused")
    with pytest.raises(_Ran):
        F.constrict(*sample_inputs(), impl="reference")


def test_unknown_implementation_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="impl must be one of auto, fused, reference, got 'fast'"):
        F.constrict(*sample_inputs(), impl="fast")
    with pytest.raises(ValueError, match="impl must be one of"):
        SpatialConstriction(3, 4, impl="fast")
    monkeypatch.setattr(loading, "FORCED_IMPL", "quick")
    with pytest.raises(ValueError, match="SC_LAYERS_IMPL must be one of auto, fused, reference, got 'quick'"):
        F.constrict(*sample_inputs())


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SC_LAYERS_IMPL", "quick", "ValueError: SC_LAYERS_IMPL must be one of auto, fused, reference, got 'quick'"),
        ("SC_LAYERS_CPU_ISA", "sse9", "ValueError: SC_LAYERS_CPU_ISA must name an instruction set of this processor"),
        ("SC_LAYERS_IMPL", "reference", "None"),
        ("SC_LAYERS_CPU_ISA", "baseline", "baseline"),
    ],
)
def test_environment_is_obeyed_and_a_wrong_setting_is_named(variable: str, value: str, expected: str) -> None:
    code = (
        "from sc_layers import SpatialConstriction; from sc_layers.ops import loading; "
        "SpatialConstriction(3, 4); print(loading.cpu_instruction_set())"
    )
    environment = {**os.environ, variable: value}
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    last_line = (ran.stdout if ran.returncode == 0 else ran.stderr).strip().splitlines()[-1]
    assert last_line.startswith(expected), ran.stderr


def test_unknown_instruction_set_raises_at_every_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC_LAYERS_CPU_ISA", "sse9")
    monkeypatch.setattr(loading, "_loaded", {})
    for _ in range(2):
        with pytest.raises(ValueError, match=r"SC_LAYERS_CPU_ISA must name .*, got 'sse9'"):
            F.constrict(*sample_inputs())


@pytest.mark.usefixtures("no_kernels")
def test_without_compiler_the_reference_runs_with_one_warning() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer = SpatialConstriction(3, 4)
        SpatialConstriction(3, 4)
        layer(torch.randn(1, 3, 4, 4), torch.randn(1, 1))
        F.constrict(*sample_inputs())
    assert len(caught) == 1
    for text in ("no C++ compiler found", "apt install g++", "sc-layers doctor"):
        assert text in str(caught[0].message)


@pytest.mark.usefixtures("no_kernels")
def test_without_compiler_fused_raises_with_the_reason() -> None:
    for attempt in (
        lambda: F.constrict(*sample_inputs(), impl="fused"),
        lambda: SpatialConstriction(3, 4, impl="fused"),
    ):
        with pytest.raises(RuntimeError, match="impl='fused' cannot be had on cpu: no C\\+\\+ compiler found"):
            attempt()


@pytest.mark.usefixtures("no_kernels")
def test_reference_needs_no_kernels_and_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = SpatialConstriction(3, 4, impl="reference")
        layer(torch.randn(1, 3, 4, 4), torch.randn(1, 1))
    assert loading.failure("cpu") is None


def test_device_without_kernels_takes_the_reference_or_raises() -> None:
    inputs = [t.detach().to("meta") for t in sample_inputs()]
    assert F.constrict(*inputs).device.type == "meta"
    with pytest.raises(RuntimeError, match="no native kernels for meta devices"):
        F.constrict(*inputs, impl="fused")


def test_traced_function_never_compiles_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(loading.building, "build", lambda recipe: pytest.fail("compiled in a traced function"))
    inputs = sample_inputs(requires_grad=False)
    function = torch.compile(lambda *tensors: F.constrict(*tensors), fullgraph=True, backend="eager")
    torch.testing.assert_close(function(*inputs), F.constrict(*inputs, impl="reference"))
    torch._dynamo.reset()


def test_import_of_the_package_compiles_nothing(tmp_path: Path) -> None:
    code = "import sc_layers.layers, sc_layers.ops.loading as ops; assert not ops.is_loaded('cpu')"
    environment = {**os.environ, "SC_LAYERS_CACHE": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True)
    assert not list(tmp_path.iterdir())


LAYER = """
import warnings
warnings.simplefilter("always")
from sc_layers import SpatialConstriction
from sc_layers.ops import loading
SpatialConstriction(4, 4)
print(loading.loaded_library("cpu"))
"""


def _layer_in(cache: Path | str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A layer made by a process that has no compiler and no prebuilt library, with this cache."""
    variables = {**os.environ, "CXX": "no-such-compiler", "SC_LAYERS_CACHE": str(cache), **environment}
    variables.pop("SC_LAYERS_PREBUILT", None)
    return subprocess.run([sys.executable, "-c", LAYER], cwd=ROOT, env=variables, capture_output=True, text=True)


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """A library in a cache of its own, compiled before by a compiler that is not there any more."""
    recipe = loading.building.cpu_recipe()
    ours = loading.building.build(recipe)
    folder = tmp_path / "cache" / ours.parent.name
    folder.mkdir(parents=True)
    for path in (ours, loading.building.stamp_file(ours)):
        shutil.copy(path, folder)
    return folder / ours.name


def test_a_library_compiled_before_is_found_without_a_compiler(compiled: Path) -> None:
    run = _layer_in(compiled.parents[1])
    assert (run.returncode, run.stdout.strip(), run.stderr) == (0, str(compiled), "")


@pytest.mark.parametrize("damage", ["truncated", "emptied", "its stamp"])
def test_a_damaged_library_is_never_loaded(compiled: Path, damage: str) -> None:
    if damage == "truncated":
        os.truncate(compiled, compiled.stat().st_size // 2)
    elif damage == "emptied":
        compiled.unlink()
    else:
        loading.building.stamp_file(compiled).write_text("{")
    run = _layer_in(compiled.parents[1])
    assert (run.returncode, run.stdout.strip()) == (0, "None")
    assert run.stderr.count("UserWarning") == 1
    assert not loading.building.is_intact(compiled)


@pytest.mark.parametrize("place", ["library", "folder", "cache"])
def test_a_library_that_others_could_have_put_there_is_never_loaded(compiled: Path, place: str) -> None:
    path = {"library": compiled, "folder": compiled.parent, "cache": compiled.parents[1]}[place]
    path.chmod(0o777)
    run = _layer_in(compiled.parents[1])
    assert (run.returncode, run.stdout.strip()) == (0, "None")
    assert f"others can write {path}" in run.stderr
    assert run.stderr.count("UserWarning") == 1


def test_a_library_behind_a_link_is_never_loaded(compiled: Path, tmp_path: Path) -> None:
    compiled.rename(tmp_path / "elsewhere.so")
    compiled.symlink_to(tmp_path / "elsewhere.so")
    assert "no regular file" in str(loading.building.why_not_trusted(compiled))
    assert _layer_in(compiled.parents[1]).stdout.strip() == "None"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to give files away")
def test_a_library_of_another_user_is_never_loaded(compiled: Path) -> None:
    os.chown(compiled, 12345, 12345)
    assert "belongs to another user" in str(loading.building.why_not_trusted(compiled))


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SC_LAYERS_CACHE", "~nosuchuser/cache"), ("CXX", "g++ 'unclosed"), ("SC_LAYERS_CACHE", "/dev/null")],
)
def test_whatever_the_environment_the_reference_runs_with_one_warning(
    tmp_path: Path, variable: str, value: str
) -> None:
    run = _layer_in(tmp_path, **{variable: value})
    assert (run.returncode, run.stdout.strip()) == (0, "None"), run.stderr
    assert run.stderr.count("UserWarning") == 1


def test_a_broken_stamp_of_a_prebuilt_library_is_no_library(tmp_path: Path) -> None:
    library = tmp_path / loading.building.library_name("cpu")
    library.write_bytes(b"library")
    loading.building.stamp_file(library).write_text("{")
    assert loading.building.prebuilt_library("cpu", tmp_path) is None


def _compilers() -> list[str]:
    """All versions of GCC and Clang on the PATH, by the names that distributions give them."""
    names = [*(f"g++-{version}" for version in range(10, 30)), *(f"clang++-{version}" for version in range(12, 40))]
    return [name for name in names if shutil.which(name)] or ["c++"]


FAILING_CALLS = """
import os, sys
import torch
from sc_layers import SpatialConstriction
torch.set_num_threads(int(sys.argv[1]))
try:
    SpatialConstriction(16, 16, impl="fused")
except ValueError as error:
    print(error)
del os.environ["SC_LAYERS_CPU_ISA"]
layer = SpatialConstriction(16, 16, impl="fused")
x, codes = torch.randn(8, 16, 16, 16, requires_grad=True), torch.randn(8, layer.num_codes)
layer(x, codes).sum().backward()
try:
    torch.ops.sc_layers.statistics(x[0], 1e-8)
except RuntimeError as error:
    print(error)
"""


@pytest.mark.sweep
@pytest.mark.parametrize("compiler", _compilers())
def test_errors_reach_python_whichever_compiler_made_the_library(compiler: str, tmp_path: Path) -> None:
    environment = {**os.environ, "CXX": compiler, "SC_LAYERS_CACHE": str(tmp_path), "SC_LAYERS_CPU_ISA": "sse9"}
    for threads in (1, 2, 16):
        command = [sys.executable, "-c", FAILING_CALLS, str(threads)]
        ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        of_the_setting, of_the_operator = ran.stdout.splitlines()
        assert of_the_setting.startswith("SC_LAYERS_CPU_ISA must name an instruction set of this processor")
        assert of_the_operator.startswith("sc_layers: x must ")
