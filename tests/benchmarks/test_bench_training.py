"""The benchmark of training steps runs, and its plain networks compute what ours do."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from sc_layers.models import Discriminator, Generator, Recognizer, network_preset
from tests.scripts import load_script
from tests.tolerances import SAME_FORMULA


def test_the_benchmark_prints_a_row_for_each_contestant_and_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load_script("benchmarks/bench_training.py")
    path = tmp_path / "rows.json"
    sizes = ["--preset", "demo", "--channels", "4", "--batch", "2", "--seconds", "0"]
    monkeypatch.setattr(sys, "argv", ["bench_training", *sizes, "--json", str(path)])
    module.main()
    rows = json.loads(path.read_text())
    assert [row["contestant"] for row in rows] == ["plain", "tf32"]
    assert [row["speedup"] for row in rows[:1]] == [1.0]
    table = capsys.readouterr().out
    assert all(f"{row['images_per_second']:.1f} images/s" in table for row in rows)


def test_the_plain_networks_compute_the_same_images_and_outputs() -> None:
    module = load_script("benchmarks/bench_training.py")
    preset = module.wide(network_preset("demo"), 4)
    generator = Generator(preset.generator)
    codes = torch.randn(2, generator.num_codes)
    images = generator(codes)
    close = SAME_FORMULA[torch.float32]
    torch.testing.assert_close(module.plain(generator)(codes), images, **close)
    for network in (Discriminator(preset.discriminator), Recognizer(preset.recognizer)):
        torch.testing.assert_close(module.plain(network)(images), network(images), **close)
