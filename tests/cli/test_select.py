"""The command `select`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sc_layers.cli import main
from tests.networks import save_small_networks


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    for seed in (0, 1):
        save_small_networks(folder / f"network-snapshot-00000{seed}.safetensors", seed)
    (folder / "network-snapshot-000009.pkl").write_bytes(b"damaged")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        main, ["select", *map(str, arguments), "--distance", "mse", "--device", "cpu", "--all-snapshots"]
    )


def test_checkpoints_are_ranked_with_intervals_and_damaged_ones_reported(run_dir: Path) -> None:
    result = run(run_dir)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].split()[:3] == ["rank", "checkpoint", "TPL"]
    assert [line.split()[0] for line in lines[1:]] == ["1", "2"]
    assert float(lines[1].split()[2]) < float(lines[2].split()[2])
    assert "could not be measured" in result.stderr
    assert "network-snapshot-000009.pkl" in result.stderr


def test_top_limits_the_list_and_json_holds_everything(run_dir: Path) -> None:
    result = run(run_dir, "--top", 1, "--json")
    loaded = json.loads(result.stdout)
    assert len(loaded["ranked"]) == 1
    assert len(loaded["failures"]) == 1
    assert len(loaded["ranked"][0]["per_dim"]) == 3


def test_correlations_against_supervised_metrics_follow(run_dir: Path) -> None:
    result = run(run_dir, "--against", "mig", "--data", "dsprites", "--effort", 0.01)
    assert result.exit_code == 0, result.output
    assert "Spearman's rank correlation" in result.stdout
    assert result.stdout.splitlines()[-1].split()[:2] == ["TPL", "2"]


def test_the_newest_snapshot_is_taken_unless_all_are_asked_for(run_dir: Path, tmp_path: Path) -> None:
    for seed in (3, 4):
        save_small_networks(tmp_path / f"network-snapshot-00000{seed}.safetensors", seed)
    options = ("--distance", "mse", "--device", "cpu", "--against", "mig", "--data", "dsprites", "--effort", 0.01)
    result = CliRunner().invoke(main, ["select", str(tmp_path), *map(str, options)])
    assert result.exit_code == 0, result.output
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [
        ["1", str(tmp_path / "network-snapshot-000004.safetensors")]
    ]
    assert "1 older snapshots of these runs are left out (--all-snapshots takes them)" in result.stderr
    assert "0.00" not in result.stdout  # one model has no correlation


def test_a_filter_that_leaves_too_few_models_has_a_dash_for_a_correlation(run_dir: Path) -> None:
    result = run(run_dir, "--against", "mig", "--data", "dsprites", "--effort", 0.01, "--min-active", 4)
    assert result.stdout.splitlines()[-1].split() == ["TPL", "(act>3)", "0", "-"]


def test_a_filter_that_nothing_passes_ends_with_status_1(run_dir: Path) -> None:
    result = run(run_dir, "--min-active", 4)
    assert result.exit_code == 1
    assert "none of 2 models has 4 active codes" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metric", "fid"], "ranked by one of tpl_small_0.3"),
        (["--against", "mig"], "a data set is needed"),
        (["--against", "fvm", "--data", "dsprites"], "unknown metric 'fvm'"),
        (["--top", "0"], "--top"),
        (["--min-active", "-1"], "--min-active"),
    ],
)
def test_mistakes_are_status_2_without_a_traceback(run_dir: Path, arguments: list[str], message: str) -> None:
    result = run(run_dir, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_a_run_that_does_not_exist_is_named() -> None:
    result = run("no-such-run")
    assert result.exit_code == 2
    assert "no-such-run" in result.output
