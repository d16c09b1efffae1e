"""The real code bases, patched copies of them: set STYLEGAN2_ADA_DIR, STYLEGAN3_DIR, ROSINALITY_DIR to their checkouts.

They need what their pages in `integrations/` name; rosinality's compiles CUDA code at import (minutes, cached).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sc_layers.integrations import patching

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
VARIABLES = {"stylegan2-ada": "STYLEGAN2_ADA_DIR", "stylegan3": "STYLEGAN3_DIR", "rosinality": "ROSINALITY_DIR"}


def patched_copy(name: str, folder: Path) -> Path:
    variable = VARIABLES[name]
    if variable not in os.environ:
        pytest.skip(f"set {variable} to a checkout of {patching.CODE_BASES[name].repository}")
    copy = folder / name
    shutil.copytree(os.environ[variable], copy, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    patching.apply_patch(name, copy)
    return copy


def run(*command: str | Path, cwd: Path | None = None) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    arguments = [sys.executable, *map(str, command)]
    result = subprocess.run(arguments, cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-5000:]
    return result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIABLES)
def test_the_patch_is_reverted_byte_for_byte(name: str, tmp_path: Path) -> None:
    copy = patched_copy(name, tmp_path)
    patching.revert_patch(name, copy)
    for patch in patching.parse_patch(patching.patch_text(name)):
        assert (copy / patch.path).read_bytes() == (Path(os.environ[VARIABLES[name]]) / patch.path).read_bytes()


CONFIGURATIONS = [("stylegan2-ada", "ada")] + [("stylegan3", f"stylegan{suffix}") for suffix in ("2", "3-t", "3-r")]
CHECKS = ["identity", "codes_act", "half_precision", "tools", "pickled", "force_fp16", "phases"]
RUNS = ["training", "fine_tuning", "without_flags"]


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS + RUNS)
@pytest.mark.parametrize(("name", "cfg"), CONFIGURATIONS)
def test_nvlabs(name: str, cfg: str, check: str, tmp_path: Path) -> None:
    if check in RUNS and cfg == "stylegan3-r":
        pytest.skip("trains as stylegan3-t does")
    run(HERE / "nvlabs_checks.py", patched_copy(name, tmp_path), check, tmp_path, cfg)
