"""Editing pictures by their codes."""

from __future__ import annotations

from pathlib import Path

from tests.checkpoints import samples
from tests.examples.running import run_example


def test_codes_are_taken_over_and_swept(tmp_path: Path) -> None:
    network = tmp_path / "net.safetensors"
    network.write_bytes(samples.all_formats()["safetensors"])
    printed = run_example("06_edit.py", network, "--outdir", tmp_path)
    for name in ("transfer.png", "sweep.png"):
        assert str(tmp_path / name) in printed
        assert (tmp_path / name).stat().st_size > 0
