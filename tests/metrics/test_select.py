"""Model selection: ranking, correlations, damaged files, resuming, sharing out among processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sc_layers.metrics import MeasureSettings, SelectionSettings, select, select_models
from sc_layers.metrics.ranking import Candidate
from sc_layers.metrics.select import Selection
from tests.networks import save_small_networks

MSE = MeasureSettings(distance="mse")


def chosen(paths: list[Path], log: Any = lambda message: None, **options: Any) -> Selection:
    """All snapshots, by a cheap distance; fields of both settings by name."""
    measuring = {name: options.pop(name) for name in set(MeasureSettings.__dataclass_fields__) & set(options)}
    settings = SelectionSettings(**{"all_snapshots": True, **options})
    return select_models(paths, settings, MeasureSettings(distance="mse", **measuring), device="cpu", log=log)


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs with three checkpoints, of which one is damaged."""
    save_small_networks(tmp_path / "run0" / "network-snapshot-000001.safetensors", seed=0)
    save_small_networks(tmp_path / "run0" / "network-snapshot-000002.safetensors", seed=1)
    damaged = save_small_networks(tmp_path / "run1" / "network-snapshot-000001.safetensors", seed=2)
    damaged.write_bytes(damaged.read_bytes()[:500])
    return [tmp_path / "run0", tmp_path / "run1"]


def test_damaged_checkpoints_are_reported_and_skipped(runs: list[Path]) -> None:
    messages: list[str] = []
    result = chosen(runs, messages.append)
    assert len(result.ranked) == 2
    assert result.ranked[0].tpl < result.ranked[1].tpl
    assert [failure.name for failure in result.failures] == [str(runs[1] / "network-snapshot-000001.safetensors")]
    (skipped,) = [message for message in messages if "skipped" in message]
    assert skipped.count(result.failures[0].name) == 1  # the reader's message names the file too


def test_scores_and_correlations_with_supervised_metrics(runs: list[Path]) -> None:
    result = chosen(runs[:1], against=("mig", "factor_vae"), data="dsprites", effort=0.02)
    assert set(result.ranked[0].scores) == {"mig", "factor_vae"}
    table = result.correlations()
    assert table is not None
    assert table.columns == ("mig", "factor_vae")
    loaded = json.loads(json.dumps(result.to_dict()))
    assert loaded["correlations"]["TPL"]["models"] == 2


def _measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the checkpoints that are measured from now on."""
    names: list[str] = []
    measure = select._measure_checkpoint

    def counting(path: Path, *rest: Any) -> dict[str, Any]:
        names.append(path.name)
        return measure(path, *rest)

    monkeypatch.setattr(select, "_measure_checkpoint", counting)
    return names


def test_work_resumes_where_it_stopped(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = chosen(runs[:1])
    measured = _measured(monkeypatch)
    again = chosen(runs[:1])
    assert measured == []
    assert again.ranked == first.ranked
    # A killed process leaves half a line; a new file, or other settings, are measured.
    with (runs[0] / "select.jsonl").open("a") as file:
        file.write('{"key": {"file"')
    save_small_networks(runs[0] / "network-snapshot-000003.safetensors", seed=5)
    assert len(chosen(runs[:1]).ranked) == 3
    assert measured == ["network-snapshot-000003.safetensors"]
    chosen(runs[:1], seed=1)
    assert len(measured) == 4


def test_a_changed_checkpoint_is_measured_again(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(runs[:1])
    measured = _measured(monkeypatch)
    path = save_small_networks(runs[0] / "network-snapshot-000001.safetensors", seed=7)
    os.utime(path, ns=(1, 1))
    chosen(runs[:1])
    assert measured == [path.name]


@pytest.mark.slow
def test_processes_of_torchrun_share_the_work(runs: list[Path]) -> None:
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "sc_layers",
    ]
    arguments = ["select", *map(str, runs), "--all-snapshots", "--distance", "mse", "--device", "cpu", "--json"]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(printed) == 1
    result = json.loads(printed[0])
    assert len(result["ranked"]) == 2
    assert len(result["failures"]) == 1
    lines = [json.loads(line) for run in runs for line in (run / "select.jsonl").read_text().splitlines()]
    assert len({line["key"]["file"] + str(line["key"]["size"]) for line in lines}) == len(lines) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "fid"}, "ranked by one of tpl_small_0.3"),
        ({"against": ("fvm",)}, "unknown metric 'fvm'; known ones: tpl_small_0.3"),
        ({"against": ("mig",)}, "a data set is needed \\(--data\\) for mig"),
        ({"min_active": -1}, "min_active"),
        ({"effort": 0}, "effort must be positive"),
    ],
)
def test_wrong_settings_are_refused_before_the_work(runs: list[Path], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        chosen(runs, **arguments)


def test_the_newest_snapshot_of_each_run_is_compared_and_the_rest_counted(runs: list[Path]) -> None:
    save_small_networks(runs[1] / "network-snapshot-000007.safetensors", seed=3)
    messages: list[str] = []
    result = select_models(runs, measuring=MSE, device="cpu", log=messages.append)
    assert {Path(c.name).name for c in result.ranked} == {
        "network-snapshot-000002.safetensors",
        "network-snapshot-000007.safetensors",
    }
    assert messages[0] == "2 older snapshots of these runs are left out (--all-snapshots takes them)"


def test_a_metric_of_which_less_is_better_enters_correlations_with_its_sign_turned() -> None:
    models = [Candidate(str(k), float(k), 3, scores={"fid": 10.0 * k, "mig": -float(k)}) for k in range(4)]
    table = Selection(models, models, [], ("fid", "mig"), 0).correlations()
    assert table is not None
    assert table.rows["TPL"] == (4, (pytest.approx(1), pytest.approx(1)))


def test_one_model_has_no_correlations() -> None:
    alone = [Candidate("a", 1.0, 3, scores={"mig": 0.5})]
    assert Selection(alone, alone, [], ("mig",), 0).correlations() is None


def test_settings_that_change_a_number_measure_again(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    chosen(runs[:1])
    measured = _measured(monkeypatch)
    for changed in ({"latents": "uniform"}, {"metric": "tpl_dsprites"}):
        before = len(measured)
        chosen(runs[:1], **changed)
        assert len(measured) == before + 2, changed
    chosen(runs[:1], effort=0.5, batch_size=7)  # TPL does not depend on these
    assert len(measured) == 4
