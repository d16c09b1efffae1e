"""`sc-layers convert`: every way between the formats, and mistakes in one line."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from sc_layers import load_network
from sc_layers.checkpoints.hub import load_pretrained
from sc_layers.cli import main
from tests.checkpoints import samples
from tests.cli.running import assert_mistake, run


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments)])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "authors.pkl"
    path.write_bytes(pickle.dumps(samples.tensorflow_tuple(), 4))
    return path


def test_a_chain_of_conversions_keeps_every_tensor(source: Path, tmp_path: Path) -> None:
    expected = load_network(source)
    for name in ("a.safetensors", "b.pt", "c.pkl", "d.safetensors"):
        result = _run(source, tmp_path / name)
        assert result.exit_code == 0, result.output
        assert "G, D, Q, G_ema" in result.output
        source = tmp_path / name
    converted = load_network(source)
    assert converted["meta"] == expected["meta"]
    for network in ("G", "D", "Q", "G_ema"):
        for key, tensor in expected[network].state_dict().items():
            assert torch.equal(converted[network].state_dict()[key], tensor), key


def test_a_name_without_extension_becomes_a_folder_of_the_hub(source: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    assert _run(source, tmp_path / "folder").exit_code == 0
    generator = load_pretrained(tmp_path / "folder")
    expected = load_network(source)["G_ema"]
    assert torch.equal(generator(torch.ones(1, 2), noise_mode="const"), expected(torch.ones(1, 2), noise_mode="const"))


def test_a_folder_of_a_run_is_read_and_that_of_the_target_is_made(source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "network-snapshot-000001.pkl").write_bytes(source.read_bytes())
    result = _run(run, tmp_path / "new" / "deep" / "a.pt")
    assert result.exit_code == 0, result.output
    assert "G_ema" in load_network(tmp_path / "new" / "deep" / "a.pt")


@pytest.mark.slow
def test_a_generator_becomes_a_program(source: Path, tmp_path: Path) -> None:
    result = _run(source, tmp_path / "g.pt2", "--network", "G", "--noise", "none", "--masks")
    assert result.exit_code == 0, result.output
    images, masks = torch.export.load(tmp_path / "g.pt2").module()(torch.ones(3, 2))
    expected = load_network(source, impl="reference")["G"](torch.ones(3, 2), noise_mode="none", return_masks=True)
    torch.testing.assert_close((images, masks), expected)


def test_networks_of_other_programs_go_into_our_formats(tmp_path: Path) -> None:
    (tmp_path / "ada.pkl").write_bytes(pickle.dumps(samples.persistence_dict(), 4))
    assert _run(tmp_path / "ada.pkl", tmp_path / "ada.safetensors").exit_code == 0
    assert load_network(tmp_path / "ada.safetensors")["G"].kwargs["width"] == 3


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        (None, "a.pt", "no such network file"),
        (b"hello", "a.pt", "unknown format"),
        (pickle.dumps(samples.tensorflow_tuple(), 4), "a.h5", "the extension must be one of"),
        (pickle.dumps(samples.persistence_dict(), 4), "a.pkl", "our networks only"),
        (pickle.dumps(samples.persistence_dict(), 4), "a.onnx", "holds no generator G_ema of ours"),
        (b"\x80\x04cos\nsystem\n.", "a.pt", "asks for os.system"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(content: bytes | None, target: str, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "in").write_bytes(content)
    result = _run(tmp_path / "in", tmp_path / target)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not (tmp_path / target).exists()


@pytest.mark.parametrize(
    "command",
    [
        ["generate"],
        ["metrics", "measure"],
        ["metrics", "rotation", "--codes", "0,1"],
        ["train", "--data", "shapes3d", "--preset", "demo", "--outdir", "runs", "--resume"],
    ],
)
def test_commands_that_run_networks_refuse_those_of_other_programs(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ada.pkl").write_bytes(pickle.dumps(samples.persistence_dict(), 4))
    result = CliRunner().invoke(main, [*command, "ada.pkl"])
    assert result.exit_code == 2
    assert "of another program" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["ada.pkl"]


def test_a_failed_conversion_leaves_the_target_as_it_was(source: Path, tmp_path: Path) -> None:
    (tmp_path / "bad").write_bytes(source.read_bytes()[:-100])
    (tmp_path / "out.pt").write_bytes(b"before")
    assert _run(tmp_path / "bad", tmp_path / "out.pt").exit_code == 2
    assert (tmp_path / "out.pt").read_bytes() == b"before"


def test_another_extension_is_refused_before_a_folder_is_made(run_dir: Path, tmp_path: Path) -> None:
    assert_mistake(run("convert", run_dir, tmp_path / "new" / "a.h5"), "the extension must be one of", "'a.h5'")
    assert not list(tmp_path.iterdir())
