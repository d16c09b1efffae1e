"""Attaching and detaching."""

from __future__ import annotations

from pathlib import Path

from tests.examples.running import run_example


def test_nothing_changes_until_masks_open(tmp_path: Path) -> None:
    printed = run_example("03_attach_to_stylegan2.py", "--outdir", tmp_path)
    assert "images are bit-equal after attaching: True" in printed
    assert "codes a layer: [2, 2]" in printed
    assert "images are bit-equal after detaching: True" in printed
    assert (tmp_path / "attach.png").stat().st_size > 0
