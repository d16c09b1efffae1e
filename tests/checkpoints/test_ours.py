"""Our own three formats, there and back, and what is refused."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from sc_layers import CheckpointError, load_network, save_network
from tests.checkpoints import samples
from tests.checkpoints.samples import assert_same

EXTENSIONS = (".safetensors", ".pt", ".pkl")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_networks_and_meta_come_back(extension: str, networks: dict[str, Any], tmp_path: Path) -> None:
    networks["Q_ema"] = networks["Q"]
    meta = {"kimg": 12.5, "data": {"name": "shapes3d"}, "list": [1, None]}
    save_network(tmp_path / f"net{extension}", **networks, meta=meta)
    loaded = load_network(tmp_path / f"net{extension}")
    assert loaded.pop("meta") == meta
    assert set(loaded) == set(networks)
    for name, network in networks.items():
        assert_same(loaded[name], network)


@pytest.mark.parametrize("extension", [".safetensors", ".pt"])
def test_what_was_not_saved_is_absent(extension: str, networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / f"net{extension}", G_ema=networks["G_ema"])
    assert set(load_network(tmp_path / f"net{extension}")) == {"G_ema", "meta"}


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_half_precision_is_widened_as_load_state_dict_does(
    extension: str, networks: dict[str, Any], tmp_path: Path
) -> None:
    halves = {name: network.half() for name, network in networks.items()}
    save_network(tmp_path / f"net{extension}", **halves)
    weight = load_network(tmp_path / f"net{extension}")["D"].output.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halves["D"].output.weight.float())


def test_records_of_other_programs_go_through_our_formats(tmp_path: Path) -> None:
    content = pickle.dumps(samples.persistence_dict(), 4)
    records = load_network(io.BytesIO(content))
    for extension in (".safetensors", ".pt"):
        save_network(tmp_path / f"net{extension}", G=records["G"])
        record = load_network(tmp_path / f"net{extension}")["G"]
        assert (record.class_name, record.args, record.kwargs) == ("Net", (2,), records["G"].kwargs)
        assert all(torch.equal(record.state[name], tensor) for name, tensor in records["G"].state.items())
    with pytest.raises(ValueError, match="not G, D, G_ema"):
        save_network(tmp_path / "net.pkl", G=records["G"], D=records["D"], G_ema=records["G_ema"])


def test_a_version_of_the_future_is_named(tmp_path: Path) -> None:
    torch.save({"sc_layers": 99, "networks": {}, "meta": {}}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="version 99"):
        load_network(tmp_path / "net.pt")


def test_a_safetensors_file_of_others_is_refused(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    library.save_file({"weight": torch.zeros(2)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="not written by sc_layers"):
        load_network(tmp_path / "net.safetensors")
