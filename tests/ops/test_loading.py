"""Which path runs, and what is said where the fused one cannot."""

from __future__ import annotations

import os
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
