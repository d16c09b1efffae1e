"""What `sc-layers doctor` reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from sc_layers.cli.doctor import doctor
from sc_layers.ops import loading


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SC_LAYERS_CPU_ISA", raising=False)
    monkeypatch.setattr(loading, "FORCED_IMPL", "")


@pytest.fixture
def _nothing_compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SC_LAYERS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SC_LAYERS_PREBUILT", raising=False)
    monkeypatch.setattr(loading.building, "PREBUILT", tmp_path)
    for name in ("_loaded", "_failures"):
        monkeypatch.setattr(loading, name, {})


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(doctor, arguments)
    return result.exit_code, result.output


def test_working_machine_is_reported_with_exit_status_0() -> None:
    status, output = _run("--build")
    assert status == 0, output
    for name in ("sc-layers:", "python:", "torch:", "compiler:", "ninja:", "cache:", "cuda:"):
        assert name in output
    assert f"fused, {loading.cpu_instruction_set()}: {loading.loaded_library('cpu')}" in output
    assert "BROKEN" not in output


@pytest.mark.usefixtures("_nothing_compiled")
def test_without_build_nothing_is_compiled() -> None:
    status, output = _run()
    assert status == 0, output
    assert "once compiled" in output
    assert not loading.is_loaded("cpu")


@pytest.mark.usefixtures("_nothing_compiled")
def test_missing_compiler_is_broken_and_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, output = _run()
    assert status == 1
    assert "BROKEN: reference path, since no C++ compiler found" in output
    assert "apt install g++" in output


@pytest.mark.usefixtures("_nothing_compiled")
def test_unwritable_cache_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SC_LAYERS_CACHE", str(tmp_path / "file"))
    status, output = _run()
    assert status == 1
    assert "cannot be written" in output
    assert "SC_LAYERS_CACHE" in output


def test_unknown_settings_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_loaded", {})
    monkeypatch.setattr(loading, "FORCED_IMPL", "quick")
    monkeypatch.setenv("SC_LAYERS_CPU_ISA", "sse9")
    status, output = _run()
    assert status == 1
    assert "SC_LAYERS_IMPL must be one of" in output
    assert "SC_LAYERS_CPU_ISA must name an instruction set" in output


def test_forced_reference_is_said_and_not_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "FORCED_IMPL", "reference")
    status, output = _run("--build")
    assert status == 0, output
    assert "reference (SC_LAYERS_IMPL)" in output


def test_kernels_that_compute_wrongly_are_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert loading.load("cpu"), loading.failure("cpu")
    monkeypatch.setattr("sc_layers.cli._diagnosis._largest_deviation", lambda device: float("nan"))
    status, output = _run()
    assert status == 1
    assert "deviate by nan" in output
