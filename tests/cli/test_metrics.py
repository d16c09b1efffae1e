"""The command `metrics`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from sc_layers.cli import main
from sc_layers.cli import metrics as command
from sc_layers.metrics import distances, registry
from tests.networks import save_small_networks
from tests.tolerances import REVERSED


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small_networks(tmp_path_factory.mktemp("run") / "network-snapshot-000001.safetensors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["metrics", *map(str, arguments)])


def test_a_table_and_lines_of_json_for_each_metric(network: Path, tmp_path: Path) -> None:
    result = run(
        *(network, "--metrics", "tpl_small_0.3,factor_vae,mig", "--data", "dsprites", "--distance", "mse"),
        *("--effort", 0.02, "--outdir", tmp_path, "--plot", tmp_path / "bars.png", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    header = next(line for line in result.output.splitlines() if line.startswith("metric"))
    below = result.output.splitlines()[result.output.splitlines().index(header) + 1 :]
    assert [(line.split()[0], line.split()[2]) for line in below[:3]] == [
        ("tpl_small_0.3", "↓"),
        ("factor_vae", "↑"),
        ("mig", "↑"),
    ]
    for name in ("tpl_small_0.3", "factor_vae", "mig"):
        (line,) = map(json.loads, (tmp_path / f"metric-{name}.jsonl").read_text().splitlines())
        assert isinstance(line["results"][name], float)
        assert line["snapshot_pkl"] == network.name
    assert (tmp_path / "bars.png").stat().st_size > 1000


def test_the_network_may_be_a_run_folder_and_json_is_printed(network: Path) -> None:
    result = run(network.parent, "--distance", "mse", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.output
    line = json.loads(result.output)
    assert line["metric"] == "tpl_small_0.3"
    assert len(line["results"]["per_dim"]) == 3
    assert (network.parent / "metric-tpl_small_0.3.jsonl").is_file()


class MeanAndSpread(torch.nn.Module):
    """A cheap feature network, so that the test measures the command and not the network."""

    num_features = 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        flat = images.float().flatten(1)
        return torch.stack([flat.mean(1), flat.std(1)], dim=1)


def test_metrics_of_images_are_measured_against_data(
    network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchmetrics")
    monkeypatch.setattr(registry, "make_features", lambda name, weights: MeanAndSpread())
    monkeypatch.setenv("SC_LAYERS_CACHE", str(tmp_path / "cache"))
    result = run(
        *(network, "--metrics", "ppl,fid,kid", "--data", "dsprites", "--distance", "mse"),
        *("--num-images", 50, "--outdir", tmp_path, "--json", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.output.splitlines()]
    assert [line["metric"] for line in lines] == ["ppl", "fid", "kid"]
    assert lines[1]["results"]["num_reals"] == 50
    assert lines[1]["results"]["num_fakes"] == 50
    assert lines[0]["results"]["note"] == "50 of the standard's 50,000 pairs"
    assert len(list((tmp_path / "cache" / "features").glob("features-*.npy"))) == 1


def test_pipe_is_measured_of_generator_and_recogniser(network: Path, tmp_path: Path) -> None:
    options = ("--data", "dsprites", "--effort", 0.002, "--outdir", tmp_path, "--json", "--device", "cpu")
    result = run(network, "--metrics", "pipe", *options)
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)["results"]
    assert 0 <= found["pipe"] <= 1
    assert found["note"] == "100 of the standard's 50,000 images"


def test_a_json_a_csv_and_a_latex_file_hold_all_numbers(network: Path, tmp_path: Path) -> None:
    options = ("--data", "dsprites", "--distance", "mse", "--effort", 0.02, "--outdir", tmp_path, "--device", "cpu")
    result = run(network, "--metrics", "tpl_small_0.3,modularity", *options)
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / f"metrics-{network.stem}.json").read_text())
    assert [score["name"] for score in scores] == ["tpl_small_0.3", "modularity"]
    rows = list(csv.DictReader((tmp_path / f"metrics-{network.stem}.csv").open()))
    assert float(rows[0]["value"]) == scores[0]["score"]
    assert rows[0]["better"] == "lower"
    assert {row["quantity"] for row in rows} >= {"num_active", "explicitness", "modularity"}
    header, row = (tmp_path / f"metrics-{network.stem}.tex").read_text().splitlines()
    assert header == r"% model & tpl\_small\_0.3 $\downarrow$ & modularity $\uparrow$ \\"
    assert row.count("&") == 2


def test_codes_are_drawn_as_the_file_records_unless_told_otherwise(tmp_path: Path) -> None:
    totals = []
    for recorded, options in (("normal", ()), ("uniform", ()), ("normal", ("--latents", "uniform"))):
        path = save_small_networks(tmp_path / f"{recorded}.safetensors", training={"latents": recorded})
        result = run(path, *options, "--distance", "mse", "--json", "--device", "cpu", "--outdir", tmp_path)
        totals.append(json.loads(result.output)["results"]["total"])
    assert totals[0] != totals[1] == totals[2]


def test_a_terminal_without_arrows_gets_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    assert command._arrows() == {True: "more", False: "less"}
    monkeypatch.setattr(command.sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert command._arrows() == {True: "↑", False: "↓"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--metrics", "fvm"], "unknown metric 'fvm'; known ones: tpl_small_0.3"),
        (["--metrics", "mig"], "a data set is needed (--data)"),
        (["--metrics", "mig", "--data", "nowhere"], "no data set 'nowhere'"),
        (["--metrics", "mig", "--data", "dsprites", "--plot", "x.png"], "--plot shows TPL"),
        (["--distance", "lpips", "--weights", "none.pth"], "no such file: 'none.pth'"),
        (["--device", "gpu9", "--distance", "mse"], "device 'gpu9' cannot be used"),
        (["--effort", "0", "--distance", "mse"], "effort must be positive"),
        (["--batch", "0", "--distance", "mse"], "0 is not in the range 1<=x<=65536"),
        (["--metrics", "mig", "--data", "dsprites", "--weights", "vgg.pth"], "those of the distance of TPL and PPL"),
        (["--distance", "mse", "--feature-weights", "inception.pt"], "feature weights are those of FID and KID"),
    ],
)
def test_mistakes_are_one_line_and_status_2(network: Path, arguments: list[str], message: str) -> None:
    result = run(network, *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_network_that_does_not_exist_is_named() -> None:
    result = run("none.safetensors")
    assert result.exit_code == 2
    assert "none.safetensors" in result.output


def test_the_rotation_curve_is_printed_and_plotted(network: Path, tmp_path: Path) -> None:
    result = run(
        *("rotation", network, "--codes", "0,2", "--points", 4, "--step", 45, "--distance", "mse"),
        *("--out", tmp_path / "curve.png", "--device", "cpu"),
    )
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:8]] == [
        *("-90.0", "-45.0", "0.0", "45.0", "90.0", "135.0", "180.0")
    ]
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_the_rotation_curve_as_json(network: Path, tmp_path: Path) -> None:
    out = tmp_path / "curve.png"
    result = run(
        *("rotation", network, "--codes", "0,1", "--points", 3, "--step", 90, "--distance", "mse"),
        *("--json", "--out", out, "--device", "cpu"),
    )
    curve = json.loads(result.output)
    assert curve["codes"] == [0, 1]
    assert curve["angles"] == [-90, 0, 90, 180]
    # Half a turn runs through the same images backwards.
    assert curve["distances"][0] == pytest.approx(curve["distances"][2], rel=REVERSED)


@pytest.mark.parametrize(
    ("codes", "message"), [("3", "takes two codes"), ("0,9", "code 9 does not exist"), ("1,1", "two different codes")]
)
def test_wrong_codes_of_the_rotation_curve_are_named(network: Path, codes: str, message: str) -> None:
    result = run("rotation", network, "--codes", codes, "--distance", "mse", "--device", "cpu")
    assert result.exit_code == 2
    assert message in result.output


def test_help_lists_the_metrics_and_the_curve() -> None:
    assert "rotation" in run("--help").output
    assert "factor_vae" in run("measure", "--help").output


def test_help_and_choices_name_everything_that_there_is() -> None:
    text = " ".join(run("measure", "--help").output.split())
    assert [name for name in registry.METRICS if name not in text] == []
    assert command.DISTANCES == distances.DISTANCES
