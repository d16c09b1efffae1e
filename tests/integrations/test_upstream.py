"""The real code bases, patched copies of them: set STYLEGAN2_ADA_DIR, STYLEGAN3_DIR, ROSINALITY_DIR to their checkouts.

They need what their pages in `integrations/` name; rosinality's compiles CUDA code at import (minutes, cached).
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
import torch

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


@pytest.fixture
def rosinality(tmp_path: Path) -> Path:
    """A patched copy with narrow networks, and a data set of 16x16 images in it."""
    lmdb = pytest.importorskip("lmdb", reason="rosinality's data sets need lmdb")
    copy = patched_copy("rosinality", tmp_path)
    model = copy / "model.py"
    model.write_bytes(model.read_bytes().replace(b": 512,", b": 16,"))
    environment = lmdb.open(str(copy / "data"), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for index in range(8):
            picture = io.BytesIO()
            PIL.Image.new("RGB", (16, 16), (30 * index, 200, 90)).save(picture, "PNG")
            transaction.put(f"16-{index:05d}".encode(), picture.getvalue())
        transaction.put(b"length", b"8")
    environment.close()
    return copy


CODES = ["--sc-codes=4", "--sc-res=8,16", "--ps-weight=0.1"]


def train_rosinality(copy: Path, *arguments: str) -> dict[str, Any]:
    """One iteration of the training script, and the checkpoint that it writes."""
    small = ["--size=16", "--batch=4", "--n_sample=4", "--iter=1", "--channel_multiplier=1"]
    run(HERE / "on_cpu.py", "train.py", *small, *arguments, "data", cwd=copy)
    return torch.load(copy / "checkpoint" / "000000.pt", weights_only=True)


def allow_namespace() -> None:
    torch.serialization.add_safe_globals([argparse.Namespace])


@pytest.mark.slow
def test_rosinality_trains_resumes_and_generates(rosinality: Path) -> None:
    allow_namespace()
    first = train_rosinality(rosinality, *CODES)
    assert first["sc"]["num_codes"] == 4
    kept = rosinality / "checkpoint" / "first.pt"
    shutil.copy(rosinality / "checkpoint" / "000000.pt", kept)
    second = train_rosinality(rosinality, *CODES, f"--ckpt={kept}")
    assert any(not torch.equal(second["q"][name], value) for name, value in first["q"].items())
    frozen = train_rosinality(rosinality, *CODES, f"--ckpt={kept}", "--sc-freeze-g=true")
    for name, value in first["g"].items():
        if ".constriction." not in name and "noises." not in name:
            assert torch.equal(frozen["g"][name], value), name
    run(
        HERE / "on_cpu.py",
        "generate.py",
        *["--size=16", "--pics=2", "--truncation=0.7", "--channel_multiplier=1", f"--ckpt={kept}"],
        cwd=rosinality,
    )
    assert (rosinality / "sample" / "000001.png").stat().st_size > 0


@pytest.mark.slow
def test_rosinality_without_flags_and_from_its_own_checkpoint(rosinality: Path) -> None:
    allow_namespace()
    plain = train_rosinality(rosinality)
    assert "sc" not in plain
    assert "q" not in plain
    kept = rosinality / "checkpoint" / "plain.pt"
    shutil.copy(rosinality / "checkpoint" / "000000.pt", kept)
    tuned = train_rosinality(rosinality, *CODES, f"--ckpt={kept}")
    gains = [value for name, value in tuned["g"].items() if name.endswith("mask_gain")]
    assert all(0 < gain.abs().max() < 0.1 for gain in gains)
