"""The documentation site: it builds without a warning, its Python runs, its commands are understood."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from sc_layers.checkpoints import save_network
from tests.checkpoints import samples
from tests.integrations.toys import AdaLikeGenerator
from tests.test_readme import blocks

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
RUN = {"tutorial.md": 3, "how-to/hub.md": 2, "how-to/looking.md": 1}  # pages with Python, and how many blocks of it


def test_every_page_with_python_is_run() -> None:
    found = {page.relative_to(DOCS).as_posix(): len(blocks(page.read_text(), "python")) for page in DOCS.rglob("*.md")}
    assert {name: count for name, count in found.items() if count} == RUN


@pytest.mark.parametrize("name", RUN)
def test_python_runs_as_it_stands(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    networks = samples.networks()
    for extension in ("pkl", "safetensors"):
        save_network(f"network-snapshot.{extension}", **networks)
    torch.manual_seed(0)
    names: dict[str, Any] = {"G": AdaLikeGenerator(resolution=32).eval()}
    for block in blocks((DOCS / name).read_text(), "python"):
        exec(compile(block, name, "exec"), names)


def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    pages = {page.relative_to(tmp_path).as_posix(): page.read_text() for page in tmp_path.rglob("*.html")}
    assert {"index.html", "tutorial.html", "integrations/stylegan2_ada/index.html", "reference/cli.html"} <= set(pages)
    assert "perceptual_simplicity_loss" in pages["reference/layers.html"]
    assert "<math" in pages["concepts.html"]
    assert (tmp_path / "figures" / "rectangles.svg").stat().st_size > 1000
    for name, page in pages.items():
        loaded = re.findall(r'<(?:script|img|link|iframe)[^>]+(?:src|href)="(https?://[^"]+)"', page)
        assert not [address for address in loaded if "canonical" not in address], name
