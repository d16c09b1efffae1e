"""Generators in folders of the hub's layout; everything here is offline."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sc_layers import CheckpointError, load_network
from sc_layers.checkpoints.hub import load_pretrained, push_to_hub, save_pretrained
from sc_layers.models import Generator
from tests.checkpoints import samples

hub = pytest.importorskip("huggingface_hub")


@pytest.fixture
def generator() -> Generator:
    return samples.networks()["G"].eval()  # type: ignore[return-value]


def test_a_generator_comes_back_from_its_folder(generator: Generator, tmp_path: Path) -> None:
    save_pretrained(generator, tmp_path / "folder")
    loaded = load_pretrained(tmp_path / "folder")
    assert isinstance(loaded, Generator)
    assert not loaded.training
    codes = torch.randn(2, 2)
    assert torch.equal(loaded(codes, noise_mode="const"), generator(codes, noise_mode="const"))


def test_the_folder_has_configuration_card_and_pictures(generator: Generator, tmp_path: Path) -> None:
    save_pretrained(generator, tmp_path, metrics={"fid": 12.3456, "tpl": 3.0})
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
        "samples.png",
        "traversal.png",
    }
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "sc-layers"
    assert "| fid | 12.35 |\n| tpl | 3 |" in card.text
    assert "![Pictures of random codes](samples.png)" in card.text
    assert samples.MODULES in card.text
    assert Image.open(tmp_path / "samples.png").size == (6 * 8, 3 * 8)


def test_recogniser_settings_and_names_come_back(generator: Generator, tmp_path: Path) -> None:
    networks = samples.networks()
    meta = {"training": {"latents": "uniform"}, "data": "shapes3d", "code_names": {"1": "smile"}}
    averaged = copy.deepcopy(networks["Q"])
    with torch.no_grad():
        next(averaged.parameters()).add_(1)
    given = {"G_ema": generator, "Q": networks["Q"], "Q_ema": averaged, "meta": meta}
    save_pretrained(given, tmp_path, license="cc-by-4.0")
    loaded = load_network(tmp_path / "model.safetensors")
    assert loaded["meta"] == meta
    assert all(torch.equal(a, b) for a, b in zip(loaded["Q"].parameters(), averaged.parameters(), strict=True))
    card = hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "cc-by-4.0"
    assert card.data.datasets in ("shapes3d", ["shapes3d"])
    assert 'draw_codes(1, 2, "uniform")' in card.text
    assert "trained on shapes3d" in card.text


def test_the_code_of_the_card_runs(generator: Generator, tmp_path: Path) -> None:
    save_pretrained(generator, tmp_path)
    text = (tmp_path / "README.md").read_text()
    code = text.split("```python\n")[1].split("```")[0].replace("this repository or folder", str(tmp_path))
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["images"].shape == (1, 1, 8, 8)


def test_a_hub_out_of_reach_is_told_in_one_line_without_trying_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*names: str, **options: Any) -> str:
        assert options["local_files_only"]
        raise hub.errors.LocalEntryNotFoundError("Cannot find it on disk\nand more")

    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "hf_hub_download", download)
    message = (
        r"^somebody/something is neither a folder here nor had from the hub: http://127.0.0.1:9 does not answer, .+$"
    )
    with pytest.raises(OSError, match=message):
        load_pretrained("somebody/something")


def test_a_repository_that_does_not_exist_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*names: str, **options: Any) -> str:
        raise hub.errors.HFValidationError("Repo id must be in the form 'name'\nand more")

    monkeypatch.setattr("sc_layers.checkpoints.hub._out_of_reach", lambda: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    with pytest.raises(OSError, match=r"^a b is neither a folder .*: Repo id must be in the form 'name'$"):
        load_pretrained("a b")


def test_a_card_that_lies_there_is_kept(generator: Generator, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    save_pretrained(generator, tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_without_weights_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_pretrained(tmp_path)


def test_damaged_weights_are_an_error(generator: Generator, tmp_path: Path) -> None:
    save_pretrained(generator, tmp_path)
    data = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        load_pretrained(tmp_path)


def test_a_repository_is_fetched_by_the_library(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_pretrained(generator, tmp_path)
    asked: list[tuple[str, str, Any]] = []

    def download(repo_id: str, filename: str, **options: Any) -> str:
        asked.append((repo_id, filename, options.get("revision")))
        return str(tmp_path / filename)

    monkeypatch.setattr("sc_layers.checkpoints.hub._out_of_reach", lambda: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    loaded = load_pretrained("somebody/something", revision="v1")
    assert loaded.num_codes == 2
    assert ("somebody/something", "model.safetensors", "v1") in asked


def test_pushing_uploads_what_saving_writes(
    generator: Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded: dict[str, Any] = {}

    def upload(self: Any, *, repo_id: str, folder_path: str, **options: Any) -> str:
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()}, repo_id=repo_id)
        return "https://example.org/commit"

    monkeypatch.setattr(
        hub.HfApi, "create_repo", lambda self, repo_id, **options: type("Repo", (), {"repo_id": repo_id})
    )
    monkeypatch.setattr(hub.HfApi, "upload_folder", upload)
    assert push_to_hub(generator, "somebody/something", metrics={"fid": 1.0}) == "https://example.org/commit"
    assert uploaded["repo_id"] == "somebody/something"
    assert b"| fid | 1 |" in uploaded["README.md"]
    assert {"model.safetensors", "config.json", "samples.png"} <= set(uploaded)


def test_without_the_library_the_extra_is_named(generator: Generator, tmp_path: Path) -> None:
    import sys

    from sc_layers.checkpoints.hub import _wrapper_class

    _wrapper_class.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(ImportError, match=r"sc-layers\[hub\]"):
            save_pretrained(generator, tmp_path)
