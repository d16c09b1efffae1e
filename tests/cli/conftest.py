"""A trained run that the tests of all commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import TINY_TRAINING, run


@pytest.fixture(scope="package")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two updates."""
    outdir = tmp_path_factory.mktemp("runs")
    result = run(*TINY_TRAINING, "--outdir", outdir, "--snap", "0.008", "--seed", "3")
    assert result.exit_code == 0, result.output
    (folder,) = outdir.iterdir()
    assert f"finished: {folder / 'network-snapshot-000000.016.safetensors'}" in result.output
    return folder
