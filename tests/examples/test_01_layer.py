"""The layer finds the place where a code acts."""

from __future__ import annotations

from pathlib import Path

from tests.examples.running import run_example


def test_the_mask_covers_the_place(tmp_path: Path) -> None:
    printed = run_example("01_layer.py", "--outdir", tmp_path)
    assert "overlap by 100%" in printed
    assert (tmp_path / "layer.png").stat().st_size > 0
