"""The fused operator must be there for these tests; a machine without a compiler fails them."""

from __future__ import annotations

import pytest

from sc_layers.ops import loading


@pytest.fixture(autouse=True)
def _no_forced_implementation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests compare both paths, whatever the environment says."""
    monkeypatch.setattr(loading, "FORCED_IMPL", "")
    monkeypatch.delenv("SC_LAYERS_IMPL", raising=False)
    monkeypatch.delenv("SC_LAYERS_CPU_ISA", raising=False)


@pytest.fixture(scope="session", autouse=True)
def _kernels() -> None:
    assert loading.load("cpu"), loading.failure("cpu")
