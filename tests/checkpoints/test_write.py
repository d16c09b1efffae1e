"""Saving: other programs open our files, and what cannot be saved leaves nothing behind."""

from __future__ import annotations

import os
import pickle
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from sc_layers import load_network, save_network
from tests.checkpoints.samples import assert_same


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


def test_a_missing_folder_is_named(networks: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        save_network(tmp_path / "nowhere" / "net.pt", G=networks["G"])


def test_networks_that_share_tensors_are_saved_each(networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / "net.safetensors", G=networks["G"], G_ema=networks["G"])
    loaded = load_network(tmp_path / "net.safetensors")
    assert_same(loaded["G"], networks["G"])
    assert_same(loaded["G_ema"], networks["G"])
