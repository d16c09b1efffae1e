"""Opening networks of any supported file, ready to run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sc_layers.checkpoints import save_network
from sc_layers.checkpoints.opening import generator_name, open_networks
from tests.checkpoints import samples


def test_the_averaged_generator_goes_before_the_one_in_training() -> None:
    assert generator_name({"G": 1, "D": 2, "G_ema": 3}) == "G_ema"
    assert generator_name(["G", "meta"]) == "G"
    with pytest.raises(ValueError, match="no generator G_ema or G, only D, Q"):
        generator_name(["D", "Q"])


def test_networks_of_ours_open_as_they_load(tmp_path: Path) -> None:
    networks = samples.networks()
    save_network(tmp_path / "net.pt", G=networks["G"], Q=networks["Q"])
    opened = open_networks(tmp_path / "net.pt")
    codes = torch.randn(2, opened["G"].num_codes)
    assert torch.equal(opened["G"](codes, noise_mode="const"), networks["G"].eval()(codes, noise_mode="const"))


def test_a_file_without_generator_and_a_class_of_none_are_named(tmp_path: Path) -> None:
    networks = samples.networks()
    save_network(tmp_path / "d.pt", D=networks["D"])
    with pytest.raises(ValueError, match=r"d\.pt holds no generator"):
        open_networks(tmp_path / "d.pt")
    save_network(tmp_path / "g.pt", G=networks["G"])
    with pytest.raises(ValueError, match=r"g\.pt holds a generator without classes, got class 3"):
        open_networks(tmp_path / "g.pt", label=3)
