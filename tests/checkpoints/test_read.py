"""Our own three formats, there and back, and what is refused."""

from __future__ import annotations

import io
import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sc_layers
from sc_layers import CheckpointError, UntrustedCheckpointError, load_network, save_network
from sc_layers.layers import SpatialConstriction
from tests.checkpoints import samples

EXTENSIONS = (".safetensors", ".pt", ".pkl")


def assert_same(network: nn.Module, expected: nn.Module) -> None:
    assert type(network) is type(expected)
    assert network.config == expected.config
    state = network.state_dict()
    assert list(state) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name


@pytest.fixture
def networks() -> dict[str, nn.Module]:
    return samples.networks()


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
def test_the_format_is_recognised_by_content(extension: str, networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / f"net{extension}", **networks)
    (tmp_path / f"net{extension}").rename(tmp_path / "net.data")
    assert_same(load_network(str(tmp_path / "net.data"))["D"], networks["D"])
    with (tmp_path / "net.data").open("rb") as file:
        assert_same(load_network(file)["D"], networks["D"])


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_half_precision_is_widened_as_load_state_dict_does(
    extension: str, networks: dict[str, Any], tmp_path: Path
) -> None:
    halves = {name: network.half() for name, network in networks.items()}
    save_network(tmp_path / f"net{extension}", **halves)
    weight = load_network(tmp_path / f"net{extension}")["D"].output.weight
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halves["D"].output.weight.float())


def test_the_implementation_of_constriction_can_be_chosen(networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / "net.pt", G=networks["G"])
    generator = load_network(tmp_path / "net.pt", impl="reference")["G"]
    layers = [module for module in generator.modules() if isinstance(module, SpatialConstriction)]
    assert [layer.impl for layer in layers] == ["reference"]


def test_safetensors_files_open_in_the_library_of_that_name(networks: dict[str, Any], tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    save_network(tmp_path / "net.safetensors", G=networks["G"], D=networks["D"])
    tensors = library.load_file(tmp_path / "net.safetensors")
    expected = {f"{name}.{key}": value for name in "GD" for key, value in networks[name].state_dict().items()}
    assert set(tensors) == set(expected)
    assert all(torch.equal(tensors[key], value) for key, value in expected.items())


def test_pt_files_open_with_weights_only(networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / "net.pt", G=networks["G"])
    content = torch.load(tmp_path / "net.pt", weights_only=True)
    assert content["networks"]["G"]["config"] == networks["G"].config.to_dict()


def test_pkl_files_open_with_plain_pickle(networks: dict[str, Any], tmp_path: Path) -> None:
    meta = {"training_set_kwargs": {"path": "images.zip"}}
    save_network(tmp_path / "net.pkl", **networks, meta=meta)
    content = pickle.loads((tmp_path / "net.pkl").read_bytes())
    for name, network in networks.items():
        assert_same(content[name], network)
    assert content["training_set_kwargs"] == {"path": "images.zip"}
    assert content["augment_pipe"] is None


def test_a_pkl_generator_is_called_as_stylegan2_ada_does(networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / "net.pkl", **networks)
    generator = pickle.loads((tmp_path / "net.pkl").read_bytes())["G_ema"]
    z = torch.from_numpy(np.random.RandomState(0).randn(1, generator.z_dim))
    label = torch.zeros(1, generator.c_dim)
    image = generator(z, label, truncation_psi=0.5, noise_mode="const")
    assert image.shape == (1, generator.img_channels, generator.img_resolution, generator.img_resolution)
    ws = generator.mapping(z, label, truncation_psi=0.5)
    assert torch.equal(generator.synthesis(ws, noise_mode="const"), image)


@pytest.mark.parametrize("missing", ["G", "D", "G_ema"])
def test_a_pkl_without_one_of_its_networks_is_refused(missing: str, networks: dict[str, Any], tmp_path: Path) -> None:
    del networks[missing]
    with pytest.raises(ValueError, match=f"missing: {missing}$"):
        save_network(tmp_path / "net.pkl", **networks)
    assert list(tmp_path.iterdir()) == []


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


def test_an_unknown_extension_is_refused(networks: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.safetensors, \.pt, \.pkl, got 'net\.h5'"):
        save_network(tmp_path / "net.h5", G=networks["G"])


def test_nothing_to_save_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to save"):
        save_network(tmp_path / "net.pt")


def test_a_network_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="D must be a Generator or Discriminator or Recognizer"):
        save_network(tmp_path / "net.pt", D=nn.Linear(1, 1))


def test_meta_that_json_cannot_hold_is_refused(networks: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_network(tmp_path / "net.pt", G=networks["G"], meta={"tensor": torch.zeros(1)})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_or_file_is_named(networks: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_network(tmp_path / "nowhere" / "net.pt", G=networks["G"])
    with pytest.raises(FileNotFoundError, match=r"no such file: .*net\.pt"):
        load_network(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="is a folder"):
        load_network(tmp_path)


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_text("hello")
    with (tmp_path / "net.pt").open() as file, pytest.raises(TypeError, match="reading bytes"):
        load_network(file)  # type: ignore[arg-type]


def test_saving_replaces_the_file_at_once(
    networks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.pt"
    save_network(path, G=networks["G"])
    before = path.read_bytes()

    def broken(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="no space"):
        save_network(path, G=networks["G"], D=networks["D"])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_saved_files_have_the_permissions_of_new_files(networks: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    save_network(tmp_path / "net.pt", G=networks["G"])
    assert stat.S_IMODE((tmp_path / "net.pt").stat().st_mode) == stat.S_IMODE((tmp_path / "other").stat().st_mode)


def test_a_version_of_the_future_is_named(tmp_path: Path) -> None:
    torch.save({"sc_layers": 99, "networks": {}, "meta": {}}, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="version 99"):
        load_network(tmp_path / "net.pt")


def test_a_safetensors_file_of_others_is_refused(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    library.save_file({"weight": torch.zeros(2)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="not written by sc_layers"):
        load_network(tmp_path / "net.safetensors")


def test_errors_are_value_errors_with_public_names() -> None:
    assert issubclass(UntrustedCheckpointError, CheckpointError)
    assert issubclass(CheckpointError, ValueError)
    assert {"load_network", "save_network", "UntrustedCheckpointError"} <= set(sc_layers.__all__)
