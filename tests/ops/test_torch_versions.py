"""The library compiled under this PyTorch runs under another one, in a second environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.ops.torch_versions import ROOT, run_tests_under, torch_version_of

OTHER_PYTHON = Path(os.environ.get("SC_LAYERS_OTHER_PYTHON", ROOT / ".venv-torch-2.13" / "bin" / "python"))


@pytest.mark.slow
def test_library_passes_the_operators_tests_under_another_torch() -> None:
    if not OTHER_PYTHON.exists():
        pytest.skip(f"no second environment at {OTHER_PYTHON}: make one, or name its python in SC_LAYERS_OTHER_PYTHON")
    assert torch_version_of(str(OTHER_PYTHON)) != torch_version_of(sys.executable)
    result = run_tests_under(str(OTHER_PYTHON), ["-m", "not slow"])
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout
