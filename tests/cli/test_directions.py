"""`sc-layers directions`: files of directions, and the commands that take them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sc_layers.attach import DirectedGenerator
from sc_layers.checkpoints import load_network, save_network
from sc_layers.checkpoints.opening import open_generator, open_networks
from sc_layers.models import Generator, GeneratorConfig
from tests.checkpoints import samples
from tests.cli.running import assert_mistake, run
from tests.integrations import toys

MODULES = "[Const-4, ResConv-up-1, C_global-4, ResConv-up-1]"


@pytest.fixture
def network(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = GeneratorConfig(module_list=MODULES, resolution=16, fmap_base=8, fmap_min=8, fmap_max=8)
    save_network(
        tmp_path / "net.safetensors", G_ema=Generator(config), meta={"training": {"latents": "uniform"}, "data": "x"}
    )
    return tmp_path / "net.safetensors"


def _find(network: Path, out: Path, *arguments: object) -> Path:
    result = run("directions", network, "--count", 3, "--samples", 50, "-o", out, *arguments)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("method", ["sefa", "ganspace"])
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_the_file_opens_as_a_generator_of_coordinates(network: Path, tmp_path: Path, method: str, suffix: str) -> None:
    opened = open_generator(_find(network, tmp_path / f"found.{suffix}", "--method", method))
    assert isinstance(opened.generator, DirectedGenerator)
    assert opened.generator.num_codes == 3
    assert opened.latents == "normal"
    view, codes = opened.at_seed(3)
    plain, own = open_generator(network).at_seed(3)
    torch.testing.assert_close(view(codes), plain(own), rtol=1e-4, atol=1e-4)


def test_every_command_takes_it(network: Path, tmp_path: Path) -> None:
    found = _find(network, tmp_path / "found.safetensors", "--method", "sefa")
    for words in (
        ["generate", found, "--seeds", "0-1", "--set", "2=1.5", "--outdir", tmp_path],
        ["traverse", found, "--points", 3, "--order", "tpl", "--distance", "mse", "--outdir", tmp_path],
        ["label", found, "1=hue"],
        ["metrics", found, "--metrics", "tpl_small_0.3,ppl", "--distance", "mse", "--num-images", 4],
        ["select", found, "--distance", "mse"],
        ["inspect", found],
        ["convert", found, tmp_path / "again.pt"],
    ):
        result = run(*words)
        assert result.exit_code == 0, result.output
    assert open_generator(tmp_path / "again.pt").names == {1: "hue"}
    assert_mistake(run("convert", found, tmp_path / "net.onnx"), "has directions, which only .safetensors")
    assert_mistake(run("directions", found, "--method", "sefa"), "has directions already")
    assert_mistake(run("encode", found, tmp_path / "grid.png"), "holds directions: encode by the network")
    assert_mistake(run("generate", found, "--latents", "uniform"), "directions need --latents normal, got uniform")
    assert_mistake(run("directions", network, "--method", "sefa", "--count", 9), "count must be from 1 to 4")


def test_damaged_directions_are_named(network: Path, tmp_path: Path) -> None:
    networks = load_network(network)
    save_network(tmp_path / "bad.pt", G_ema=networks["G_ema"], meta={"directions": {"method": "sefa"}})
    assert_mistake(run("generate", tmp_path / "bad.pt"), "bad.pt: directions are a dict, expected a mapping of")


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Laid out as stylegan2-ada-pytorch."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "ada" / "training").mkdir(parents=True)
    (tmp_path / "ada" / "training" / "networks.py").write_text("from tests.integrations.toys import AdaLikeGenerator\n")
    yield tmp_path / "ada"
    for name in ("training", "training.networks"):
        sys.modules.pop(name, None)


def test_a_generator_of_another_program_needs_no_constriction(checkout: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = toys.AdaLikeGenerator(16).eval().requires_grad_(False)
    (tmp_path / "net.pkl").write_bytes(samples.pickled({"G": generator, "G_ema": generator}))
    assert_mistake(run("generate", tmp_path / "net.pkl"), "find directions in it (sc-layers directions)")
    arguments = ["--method", "ganspace", "--code", checkout, "--rows", "0-3"]
    found = _find(tmp_path / "net.pkl", tmp_path / "found.safetensors", *arguments)
    view = open_networks(found, checkout, seed=4)["G_ema"]
    codes = view.at_seed(4)[1]
    z = torch.from_numpy(np.random.RandomState(4).randn(1, 5)).float()
    torch.testing.assert_close(view(codes), generator(z, noise_mode="const"), rtol=1e-4, atol=1e-4)
    result = run("traverse", found, "--code", checkout, "--points", 2, "--outdir", tmp_path)
    assert result.exit_code == 0, result.output
