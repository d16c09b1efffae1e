"""Encoded images in a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sc_layers.checkpoints import CheckpointError
from sc_layers.checkpoints import safetensors as files
from sc_layers.checkpoints.encodings import Encoding
from sc_layers.models.modules import NoiseConv
from tests.networks import NUM_CODES, save_small_networks, small_networks


def noise_of(generator: Any) -> dict[str, torch.Tensor]:
    modules = {name: module for name, module in generator.named_modules() if isinstance(module, NoiseConv)}
    return {f"{name}.noise_map": torch.randn(2, *module.noise_map.shape[1:]) for name, module in modules.items()}


def test_what_was_saved_is_loaded_and_drawn(tmp_path: Path) -> None:
    generator = small_networks()["G_ema"]
    saved = Encoding(["a.png", "b.png"], torch.randn(2, NUM_CODES), noise_of(generator))
    saved.save(tmp_path / "encoded.safetensors")
    loaded = Encoding.load(tmp_path / "encoded.safetensors")
    assert loaded.names == saved.names
    loaded.check_fits(generator, NUM_CODES)
    before = {name: buffer.clone() for name, buffer in generator.named_buffers()}
    noisy, codes = loaded.at(1, generator)
    assert torch.equal(codes, saved.codes[1:])
    buffers = dict(noisy.named_buffers())
    assert saved.noise
    assert all(torch.equal(buffers[name], maps[1:]) for name, maps in saved.noise.items())
    assert all(torch.equal(buffer, before[name]) for name, buffer in generator.named_buffers())
    with pytest.raises(ValueError, match="no encoded image 2: there are 2, from 0"):
        loaded.at(2, generator)


def test_another_network_is_refused() -> None:
    generator = small_networks()["G_ema"]
    with pytest.raises(ValueError, match="encoded as \\(1, 5\\) codes, the network has 3"):
        Encoding(["a"], torch.zeros(1, 5), {}).check_fits(generator, NUM_CODES)
    with pytest.raises(ValueError, match=r"noise 'synthesis\.none' that the network does not have"):
        Encoding(["a"], torch.zeros(1, 3), {"synthesis.none": torch.zeros(1, 1, 4, 4)}).check_fits(generator, NUM_CODES)


@pytest.mark.parametrize(
    ("tensors", "names", "message"),
    [
        ({"codes": torch.zeros(1, 3)}, None, "no images that `sc-layers encode` encoded"),
        ({"other": torch.zeros(1, 3)}, ["a"], "no images that `sc-layers encode` encoded"),
        ({"codes": torch.zeros(1, 3)}, ["a", "b"], "'codes' has not a row of finite numbers for each image"),
        ({"codes": torch.full((1, 3), float("nan"))}, ["a"], "'codes' has not a row of finite numbers"),
        ({"codes": torch.zeros(1, 3), "n": torch.zeros(2, 1)}, ["a"], "'n' has not a row"),
        ({"codes": torch.zeros((), dtype=torch.long)}, [], "'codes' has not a row"),
        ({"codes": torch.zeros(1, 3)}, {"a": 1}, "expected a list of texts"),
    ],
)
def test_other_files_are_named(tmp_path: Path, tensors: dict[str, Any], names: Any, message: str) -> None:
    path = tmp_path / "other.safetensors"
    path.write_bytes(files.dump(tensors, {} if names is None else {"encoded_images": json.dumps(names)}))
    with pytest.raises(CheckpointError, match=message) as failure:
        Encoding.load(path)
    assert "other.safetensors" in str(failure.value)


def test_a_network_is_no_encoding(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no images that"):
        Encoding.load(save_small_networks(tmp_path / "network.safetensors"))
