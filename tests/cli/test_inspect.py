"""`sc-layers inspect`: what it says of every format, and that it runs nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from sc_layers.cli import main
from tests.checkpoints import samples
from tests.checkpoints.audit import watched


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["inspect", *map(str, arguments)])


def write(tmp_path: Path, name: str) -> Path:
    (tmp_path / "file").write_bytes(samples.all_formats()[name])
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        (
            "safetensors",
            ["format: sc-layers safetensors", "G_ema: Generator, ", f"module_list: {samples.MODULES}", "meta kimg: 1"],
        ),
        ("pt", ["format: sc-layers .pt", "Q: Recognizer, ", "num_codes: 2"]),
        ("pkl", ["format: sc-layers .pkl", "D: Discriminator, "]),
        ("tensorflow-2", ["format: TensorFlow networks", "Q: Recognizer", f"module_list: {samples.MODULES}"]),
        (
            "persistence",
            ["format: stylegan2-ada-pytorch or stylegan3", "G: Net (of another program), 10 numbers in 4", "width: 3"],
        ),
        ("rosinality", ["format: rosinality", "D: Discriminator (of another program), 6 numbers in 1 tensors"]),
    ],
)
def test_it_tells_format_networks_and_arguments(name: str, lines: list[str], tmp_path: Path) -> None:
    result = _run(write(tmp_path, name))
    assert result.exit_code == 0, result.output
    for line in lines:
        assert line in result.output


def test_it_takes_the_newest_snapshot_of_a_run_and_the_network_of_a_hub_folder(tmp_path: Path) -> None:
    for name in ("network-snapshot-000001.safetensors", "model.safetensors"):
        folder = tmp_path / name.split("-")[0]
        folder.mkdir()
        (folder / name).write_bytes(samples.all_formats()["safetensors"])
        result = _run(folder)
        assert result.exit_code == 0, result.output
        assert "G_ema: Generator, " in result.output


def test_it_lists_tensors_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "persistence")
    assert "part.weight float32 [2, 3]" in _run(path, "--tensors").output
    assert "part.weight" not in _run(path).output


def test_it_prints_json_when_asked(tmp_path: Path) -> None:
    report = json.loads(_run(write(tmp_path, "persistence"), "--json").output)
    assert report["networks"]["G"]["class"] == "Net (of another program)"
    assert report["networks"]["G"]["arguments"]["width"] == 3
    assert report["meta"]["training_set_kwargs"] == {"path": "images.zip"}


def test_it_cannot_be_made_to_write_control_characters(tmp_path: Path) -> None:
    state = samples.states()["D"]
    data = samples.write_safetensors({"D": state}, {"note": "\x1b[2J\r\nformat: harmless", "long": "x" * 1000})
    (tmp_path / "file").write_bytes(data)
    output = _run(tmp_path / "file").output
    assert "\x1b" not in output
    assert "\nformat: harmless" not in output
    assert max(map(len, output.splitlines())) <= 200


def test_a_hostile_file_is_one_line_and_status_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(b"\x80\x02cos\nsystem\n(S'touch there'\ntR.")
    _run(write(tmp_path, "pt"))
    (tmp_path / "file").write_bytes(b"\x80\x02cos\nsystem\n(S'touch there'\ntR.")
    with watched() as events:
        result = _run(tmp_path / "file")
    assert result.exit_code == 2
    assert "asks for os.system" in result.output
    assert events == []
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
