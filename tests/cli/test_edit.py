"""`sc-layers edit`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from tests.cli.running import assert_mistake, run


def test_attributes_are_taken_over_by_code_or_name(run_dir: Path, tmp_path: Path) -> None:
    network = shutil.copy(run_dir / "network-snapshot-000000.016.safetensors", tmp_path / "net.safetensors")
    run("label", network, "0=hue")
    sheets = []
    for attributes in ("hue,both=1+2", "hue=0,both=1+2"):
        arguments = ("--sources", "1,2", "--from", "5,6", "--attributes", attributes, "--outdir", tmp_path)
        result = run("edit", network, *arguments)
        assert result.exit_code == 0, result.output
        sheets.append(np.asarray(Image.open(tmp_path / "edit.png")))
    assert np.array_equal(*sheets)


def test_codes_are_flipped(run_dir: Path, tmp_path: Path) -> None:
    result = run("edit", run_dir, "--sources", "3", "--flip", "0,2", "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
    assert Image.open(tmp_path / "edit.png").width > 3 * 96


def test_mistakes_are_named_and_write_nothing(run_dir: Path, tmp_path: Path) -> None:
    outdir = ("--outdir", tmp_path / "out")
    assert_mistake(run("edit", run_dir, *outdir), "give --from and --attributes, or --flip")
    assert_mistake(run("edit", run_dir, *outdir, "--flip", "0", "--from", "1"), "--flip excludes")
    assert_mistake(run("edit", run_dir, *outdir, "--flip", "9"), "code 9 does not exist")
    other = ("--from", "1", "--attributes")
    assert_mistake(run("edit", run_dir, *outdir, *other, "smile"), "no code is called 'smile'", "known are: none")
    assert_mistake(run("edit", run_dir, *outdir, *other, "a=x"), "'a=x' is no attribute such as")
    assert_mistake(run("edit", run_dir, *outdir, *other, "a=7"), "code 7 does not exist")
    assert_mistake(run("edit", run_dir, *outdir, "--sources", "0-9999", "--flip", "0"), "is too large")
    assert not (tmp_path / "out").exists()
