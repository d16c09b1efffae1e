"""A run in one page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sc_layers.data import open_dataset
from sc_layers.metrics import make_distance
from sc_layers.pictures.report import explained_by, write_report
from sc_layers.training import train
from tests.training.tiny import tiny_state

META = {"data": "shapes3d", "resolution": 32, "preset": "demo"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("run")
    train(tiny_state(), open_dataset("shapes3d", 32), run_dir, META, progress=False)
    return run_dir


@pytest.fixture
def run_dir(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "00000-a run <b>")


def _page(run_dir: Path) -> str:
    write_report(run_dir, run_dir / "report.html", make_distance("mse"))
    return (run_dir / "report.html").read_text()


def test_the_page_holds_all_that_it_shows(run_dir: Path) -> None:
    page = _page(run_dir)
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', page)
    assert len(sources) == 2 + 1 + 2 + 1  # sweeps, losses, generated and real images
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert not re.search(r"https?://|<script|@import|url\(", page)
    for text in (
        "What each code does",
        "of 3 codes make 95% of all change",
        "floor hue",
        "after 0.064 thousand images",
    ):
        assert text in page


def test_names_of_folders_are_text(run_dir: Path) -> None:
    page = _page(run_dir)
    assert "00000-a run &lt;b&gt;" in page
    assert "run <b>" not in page
    assert "sc-layers train --resume &#x27;" in page, "as a shell takes it"


def test_metrics_and_tpl_over_time_are_shown_where_they_were_measured(run_dir: Path) -> None:
    without = _page(run_dir).count("data:image")
    lines = [{"results": {"tpl_small_0.3": value, "interval": [value - 1, value + 1]}} for value in (3.0, 2.5)]
    (run_dir / "metric-tpl_small_0.3.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"cut')
    (run_dir / "metric-factor_vae.jsonl").write_text(json.dumps({"results": {"factor_vae": 0.75}}) + "\n")
    page = _page(run_dir)
    assert page.count("data:image") == without + 1
    assert "<td>tpl_small_0.3</td><td class=number>2.5</td><td class=number>lower</td>" in page
    assert "<td>factor_vae</td><td class=number>0.75</td><td class=number>higher</td>" in page


def test_a_run_without_statistics_or_known_factors_has_a_page(run_dir: Path) -> None:
    (run_dir / "stats.jsonl").unlink()
    options = json.loads((run_dir / "training_options.json").read_text())
    (run_dir / "training_options.json").write_text(json.dumps({**options, "data": "pictures"}))
    page = _page(run_dir)
    assert "No line of statistics was written" in page
    assert "factors are not known" in page


def test_a_folder_without_a_snapshot_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*training_options\.json"):
        write_report(tmp_path, tmp_path / "report.html", make_distance("mse"))
    (tmp_path / "training_options.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="holds no snapshot yet"):
        write_report(tmp_path, tmp_path / "report.html", make_distance("mse"))


def test_a_factor_explains_what_it_decides() -> None:
    factor = np.arange(600) % 3
    noise = torch.randn(600, generator=torch.Generator().manual_seed(0)).double().numpy()
    codes = np.stack([10.0 * (factor == 1), noise, np.zeros(600), noise + 3 * factor], axis=1)
    shares = explained_by(codes, factor)
    assert shares[0] == pytest.approx(1)
    assert shares[1] < 0.02
    assert shares[2] == 0
    assert 0.8 < shares[3] < 0.95
