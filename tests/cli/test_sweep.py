"""`sc-layers sweep`: a small one as a whole, and every mistake before the work."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import click
import pytest
import yaml

from sc_layers.cli.sweep import _check
from sc_layers.models import network_preset
from sc_layers.sweep import Grid, load_results, read_grid, scheduling
from tests.cli.running import assert_mistake, run

GRIDS = sorted((Path(__file__).parents[2] / "examples" / "grids").glob("*.yaml"))
SMALL = next(path for path in GRIDS if path.stem == "small")


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: path.stem)
def test_the_grids_that_are_shipped_are_understood(path: Path) -> None:
    runs = read_grid(path).runs()
    _check(runs)
    assert len(runs) >= 4


def test_the_grid_that_the_page_explains_is_understood(tmp_path: Path) -> None:
    page = Path(__file__).parents[2] / "docs" / "how-to" / "sweeps.md"
    (content,) = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "grid.yaml").write_text(content)
    runs = read_grid(tmp_path / "grid.yaml").runs()
    _check(runs)
    assert len(runs) == 120


@pytest.mark.slow
def test_a_sweep_goes_on_where_it_stopped_notes_failures_and_makes_tables(tmp_path: Path) -> None:
    grid, outdir = tmp_path / "grid.yaml", tmp_path / "out"
    content = yaml.safe_load(SMALL.read_text())
    content["methods"]["broken"] = {"data": str(tmp_path / "nowhere")}
    content["train"]["kimg"] = 0.016
    grid.write_text(yaml.safe_dump({**content, "seeds": [0]}))
    handler = signal.getsignal(signal.SIGTERM)
    result = run("sweep", grid, "--outdir", outdir, "--cpus", "2", "--gpu-share", "0", "--no-estimate")
    assert result.exit_code == 1
    assert signal.getsignal(signal.SIGTERM) is handler  # which Ray replaces
    assert "2 runs finished, 1 failed" in result.output
    assert "nowhere" in next(line for line in result.stderr.splitlines() if "broken-seed0: failed: " in line)
    before = {path: path.stat().st_mtime_ns for path in outdir.glob("[!b]*/result.json")}
    assert len(before) == 2

    del content["methods"]["broken"]
    content["methods"] = dict(reversed(content["methods"].items()))
    grid.write_text(yaml.safe_dump(content, sort_keys=False))
    result = run("sweep", grid, "--outdir", outdir, "--cpus", "2", "--gpu-share", "0")
    assert result.exit_code == 0, result.output
    assert "4 runs, 2 of them finished already" in result.output
    lines = [line.split(":")[0].strip() for line in result.stderr.splitlines()]
    assert lines[:4] == ["PS-SC-seed1", "InfoGAN-seed1", "measuring a run", "all"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(one.status for one in load_results(outdir)) == ["failed", *["finished"] * 4]
    lines = run("table", outdir).stdout.splitlines()
    assert lines[0] == "| method | runs | failed | tpl_small_0.3 ↓ | factor_vae ↑ | dci ↑ | mig ↑ |"
    assert [line.split(" | ")[:3] for line in lines[2:]] == [
        *(["| PS-SC", "2", "0"], ["| InfoGAN", "2", "0"], ["| broken", "0", "1"])
    ]


def test_a_run_that_fails_leaves_the_time_unknown_and_is_noted_in_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "sweep", lambda *_: [])
    (tmp_path / "grid.yaml").write_text(f"train: {{data: {tmp_path}}}\nmetrics: [mig]\nseeds: 2\n")
    result = run("sweep", tmp_path / "grid.yaml", "--outdir", tmp_path / "out", "--gpu-share", "0")
    assert result.exit_code == 0, result.output
    assert "how long all takes is not known: " in result.stderr
    assert str(tmp_path) in result.stderr
    result = run("sweep", tmp_path / "grid.yaml", "--outdir", tmp_path / "out", "--gpu-share", "0", "--dry-run")
    assert result.exit_code == 1
    assert "Error: how long all takes is not known: " in result.stderr
    quick = ("--dry-run", "--no-estimate")
    result = run("sweep", tmp_path / "grid.yaml", "--outdir", tmp_path / "out", "--gpu-share", "0", *quick)
    assert result.exit_code == 0, result.output
    assert re.fullmatch(r"2 runs, 0 of them finished already, \d+ at a time\n", result.output)


@pytest.mark.slow
def test_a_dry_run_says_how_long_it_takes_and_leaves_nothing(tmp_path: Path) -> None:
    result = run("sweep", SMALL, "--outdir", tmp_path / "out", "--cpus", "2", "--gpu-share", "0", "--dry-run")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0] == "4 runs, 0 of them finished already, 2 at a time"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        *("InfoGAN-seed0", "PS-SC-seed0", "measuring a run", "all")
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "options", "parts"),
    [
        ("train: {colour: 3}", (), ("PS-SC-seed0: ", "--colour")),
        ("train: {kimg: many}", (), ("PS-SC-seed0: ", "'many'")),
        ("measure: {effort: much}", (), ("PS-SC-seed0: ", "'much'")),
        ("train: {preset: dsprites, rects: 2}", (), ("PS-SC-seed0: ", "no module has 2 rectangles")),
        ("train: {model: info_gan, perturbation: 1}", (), ("PS-SC-seed0: ", "--perturbation belongs to")),
        ("methods: {a: {code-weight: 0.01}, b: {}}", (), ("a-seed0 and b-seed0 train the same",)),
        ("train: {preset: dsprites}\nmethods: {a: {}, b: {mask: none}}", (), ("a-seed0 and b-seed0 train the same",)),
        ("train: {data: dsprites}", ("--address", "1.2.3.4:5"), ("--address needs --gpu-share",)),
        ("train: {data: dsprites}", ("--cpus", "1", "--threads", "2"), ("a run takes 2 threads, and there are 1",)),
        (
            "train: {data: dsprites}",
            ("--dry-run", "--address", "x", "--gpu-share", "0"),
            ("--dry-run measures this machine",),
        ),
    ],
)
def test_mistakes_are_named_before_the_work(
    tmp_path: Path, content: str, options: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    (tmp_path / "grid.yaml").write_text(f"metrics: [mig]\n{content}\n")
    assert_mistake(run("sweep", tmp_path / "grid.yaml", "--outdir", tmp_path / "out", *options), *parts)
    assert not (tmp_path / "out").exists()


def test_methods_may_differ_in_nothing_but_the_networks_of_a_file(tmp_path: Path) -> None:
    methods = {}
    for width in (1, 2):
        networks = network_preset("demo").widened(width)
        parts = {name: getattr(networks, name).to_dict() for name in ("generator", "discriminator", "recognizer")}
        path = tmp_path / f"{width}.json"
        path.write_text(json.dumps({"data": "shapes3d", "preset": "demo", "resolution": 32, "networks": parts}))
        methods[f"width {width}"] = {"config": str(path)}
    _check(Grid(["mig"], methods=methods).runs())
    with pytest.raises(click.UsageError, match="again-seed0 train the same: --config"):
        _check(Grid(["mig"], methods={**methods, "again": methods["width 2"]}).runs())


def test_an_unknown_metric_is_named_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text("metrics: [fvm]\n")
    assert_mistake(run("sweep", tmp_path / "grid.yaml", "--outdir", tmp_path / "out"), "unknown metric 'fvm'")
