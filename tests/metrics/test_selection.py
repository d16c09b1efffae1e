"""Model selection: ranking, correlations, damaged files, resuming, sharing out among processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sc_layers.checkpoints.networks import NetworkRecord
from sc_layers.metrics import registry, select_models, selection
from sc_layers.metrics.selection import Candidate, correlation_table, find_checkpoints, rank_candidates, spearman
from tests.networks import save_small_networks, small_networks

HERD = [
    Candidate("a", 3.0, 5, scores={"FVM": 0.9, "MIG": 0.5}),
    Candidate("b", 1.0, 2, scores={"FVM": 0.1, "MIG": 0.1}),
    Candidate("c", 4.0, 6, scores={"FVM": 0.7, "MIG": 0.3}),
    Candidate("d", 5.0, 5, scores={"FVM": 0.5, "MIG": 0.4}),
]


def test_the_smallest_tpl_comes_first_among_models_with_enough_active_codes() -> None:
    assert [c.name for c in rank_candidates(HERD)] == ["b", "a", "c", "d"]
    assert [c.name for c in rank_candidates(HERD, min_active=5)] == ["a", "c", "d"]
    assert [c.name for c in rank_candidates(HERD, min_active=5, top=2)] == ["a", "c"]


@pytest.mark.parametrize("arguments", [{"min_active": -1}, {"top": 0}])
def test_numbers_out_of_range_are_refused(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"min_active|top"):
        rank_candidates(HERD, **arguments)


def test_spearman_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    first, second = [3.0, 1.0, 4.0, 1.0, 5.0], [2.0, 7.0, 1.0, 8.0, 2.0]
    assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second)[0], abs=1e-12)


@pytest.mark.parametrize(("first", "second"), [([1.0], [2.0]), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])])
def test_undefined_correlations_are_zero_with_a_warning(first: list[float], second: list[float]) -> None:
    with pytest.warns(RuntimeWarning, match="given as 0"):
        assert spearman(first, second) == 0


def test_the_correlation_table_has_the_form_of_table_1() -> None:
    table = correlation_table(HERD, ["FVM", "MIG"], min_actives=(1, 5), others=["FVM"])
    assert list(table.rows) == ["TPL (act>0)", "TPL (act>4)", "FVM"]
    assert table.rows["TPL (act>4)"] == (3, (pytest.approx(1), pytest.approx(0.5)))
    assert table.rows["FVM"][1][0] == pytest.approx(1)
    assert table.to_dict()["TPL (act>4)"] == {"models": 3, "FVM": pytest.approx(1), "MIG": pytest.approx(0.5)}
    assert str(table).splitlines()[0].split() == ["method", "models", "FVM", "MIG"]


def test_a_candidate_without_a_score_is_named() -> None:
    with pytest.raises(ValueError, match="a has no score 'DCI'; it has FVM, MIG"):
        correlation_table(HERD, ["DCI"])


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Two runs with three checkpoints, of which one is damaged."""
    save_small_networks(tmp_path / "run0" / "network-snapshot-000001.safetensors", seed=0)
    save_small_networks(tmp_path / "run0" / "network-snapshot-000002.safetensors", seed=1)
    damaged = save_small_networks(tmp_path / "run1" / "network-snapshot-000001.safetensors", seed=2)
    damaged.write_bytes(damaged.read_bytes()[:500])
    return [tmp_path / "run0", tmp_path / "run1"]


def test_all_snapshots_of_folders_and_files_by_name_are_found(runs: list[Path]) -> None:
    alone = runs[0] / "network-snapshot-000002.safetensors"
    assert [p.name for p in find_checkpoints([alone])] == [alone.name]
    assert len(find_checkpoints([*runs, alone])) == 3
    with pytest.raises(FileNotFoundError, match="no such network file or run folder"):
        find_checkpoints([runs[0] / "none"])
    with pytest.raises(FileNotFoundError, match="no network-snapshot"):
        find_checkpoints([runs[0].parent])


def test_a_folder_without_snapshots_does_not_stop_the_others(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    messages: list[str] = []
    assert len(find_checkpoints([tmp_path / "begun", *runs], messages.append)) == 3
    assert messages == [f"{tmp_path / 'begun'}: skipped: no network-snapshot-* in the folder"]


def test_damaged_checkpoints_are_reported_and_skipped(runs: list[Path]) -> None:
    messages: list[str] = []
    result = select_models(runs, distance="mse", device="cpu", log=messages.append)
    assert len(result.ranked) == 2
    assert result.ranked[0].tpl < result.ranked[1].tpl
    assert [failure.name for failure in result.failures] == [str(runs[1] / "network-snapshot-000001.safetensors")]
    (skipped,) = [message for message in messages if "skipped" in message]
    assert skipped.count(result.failures[0].name) == 1  # the reader's message names the file too


def test_scores_and_correlations_with_supervised_metrics(runs: list[Path]) -> None:
    result = select_models(
        runs[:1], distance="mse", device="cpu", against=["mig", "factor_vae"], data="dsprites", effort=0.02
    )
    assert set(result.ranked[0].scores) == {"mig", "factor_vae"}
    table = result.correlations()
    assert table is not None
    assert table.columns == ("mig", "factor_vae")
    loaded = json.loads(json.dumps(result.to_dict()))
    assert loaded["correlations"]["TPL"]["models"] == 2


def _measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the checkpoints that are measured from now on."""
    names: list[str] = []
    measure = selection._measure_checkpoint

    def counting(path: Path, *rest: Any) -> dict[str, Any]:
        names.append(path.name)
        return measure(path, *rest)

    monkeypatch.setattr(selection, "_measure_checkpoint", counting)
    return names


def test_work_resumes_where_it_stopped(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = select_models(runs[:1], distance="mse", device="cpu")
    measured = _measured(monkeypatch)
    again = select_models(runs[:1], distance="mse", device="cpu")
    assert measured == []
    assert again.ranked == first.ranked
    # A killed process leaves half a line; a new file, or other settings, are measured.
    with (runs[0] / "select.jsonl").open("a") as file:
        file.write('{"key": {"file"')
    save_small_networks(runs[0] / "network-snapshot-000003.safetensors", seed=5)
    assert len(select_models(runs[:1], distance="mse", device="cpu").ranked) == 3
    assert measured == ["network-snapshot-000003.safetensors"]
    select_models(runs[:1], distance="mse", device="cpu", seed=1)
    assert len(measured) == 4


def test_a_changed_checkpoint_is_measured_again(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    select_models(runs[:1], distance="mse", device="cpu")
    measured = _measured(monkeypatch)
    path = save_small_networks(runs[0] / "network-snapshot-000001.safetensors", seed=7)
    os.utime(path, ns=(1, 1))
    select_models(runs[:1], distance="mse", device="cpu")
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
    arguments = ["select", *map(str, runs), "--distance", "mse", "--device", "cpu", "--json"]
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
        ({"against": ["fvm"]}, "unknown metric 'fvm'; known ones: tpl_small_0.3"),
        ({"against": ["mig"]}, "a data set is needed \\(--data\\) for mig"),
        ({"min_active": -1}, "min_active"),
        ({"effort": 0}, "effort must be positive"),
    ],
)
def test_wrong_settings_are_refused_before_the_work(runs: list[Path], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        select_models(runs, distance="mse", device="cpu", **arguments)


def test_the_averaged_networks_are_measured() -> None:
    plain, averaged = small_networks(0), small_networks(1)
    loaded = {"G": plain["G_ema"], "G_ema": averaged["G_ema"], "Q": plain["Q"], "Q_ema": averaged["Q"]}
    networks = registry.Networks.of(loaded)
    assert networks.generator is averaged["G_ema"]
    assert networks.recognizer is averaged["Q"]
    plain_generator = plain["G_ema"]
    bare = registry.Networks(plain_generator, plain_generator, None, "normal")
    assert registry.Networks.of({"G": plain_generator}) == bare


def test_a_file_without_a_generator_of_ours_is_refused() -> None:
    with pytest.raises(ValueError, match="no generator"):
        registry.Networks.of({"D": None})
    with pytest.raises(ValueError, match="generator of another program"):
        registry.Networks.of({"G": NetworkRecord("Net", (), {}, {})})
