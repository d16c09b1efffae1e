"""The authors' TensorFlow pickles give the authors' numbers, through `load_network`."""

from __future__ import annotations

import io
import pickle
from typing import Any

import pytest
import torch

from sc_layers import load_network
from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.ops import loading
from tests.checkpoints import samples
from tests.golden import DATA, Golden, load_golden
from tests.tolerances import GOLDEN_NETWORK_ABSOLUTE, assert_close_absolute

FILES = ("gen_a", "gen_b", "gen_c", "gen_d", "gen_e", "gen_d_np2_proto5")


def golden_of(file: str) -> Golden:
    return load_golden(file.removesuffix("_np2_proto5"))


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(scope="module", params=("reference", "fused"))
def networks(file: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    if request.param == "fused" and not loading.load("cpu"):
        pytest.skip(f"the native operator cannot be built: {loading.failure('cpu')}")
    return load_network(DATA / f"{file}.pkl", impl=request.param)


def test_the_file_holds_the_networks_of_its_layout(file: str, networks: dict[str, Any]) -> None:
    names = {"G": "G", "D": "D", "I": "Q", "Gs": "G_ema", "Is": "Q_ema"}
    layout = golden_of(file).config["tuple_layout"]
    assert set(networks) == {names[name] for name in layout} | {"meta"}


@torch.no_grad()
def test_images_and_masks_of_the_averaged_generator(file: str, networks: dict[str, Any]) -> None:
    golden = golden_of(file)
    images, masks = networks["G_ema"](golden["latents"], noise_mode="const", return_masks=True)
    assert_close_absolute(images, golden["images"], GOLDEN_NETWORK_ABSOLUTE, "images")
    if "atts" in golden:
        assert_close_absolute(masks, golden["atts"][:, :, 0], GOLDEN_NETWORK_ABSOLUTE, "masks")
    else:
        assert masks.shape[1] == 0


@torch.no_grad()
def test_images_of_the_generator_in_training(file: str, networks: dict[str, Any]) -> None:
    expected = load_golden("gen_images_G")[file.removesuffix("_np2_proto5")]
    images = networks["G"](golden_of(file)["latents"], noise_mode="const")
    assert_close_absolute(images, expected, GOLDEN_NETWORK_ABSOLUTE, "images")


@pytest.mark.parametrize("batch", [8, 3])
@torch.no_grad()
def test_outputs_of_discriminator_and_recogniser(file: str, networks: dict[str, Any], batch: int) -> None:
    golden = golden_of(file)
    compared = 0
    for name, prefix in {"D": "D_out", "Q": "I_out", "Q_ema": "Is_out"}.items():
        if f"{prefix}{batch}" in golden:
            output = networks[name](golden["dn_images"][:batch])
            assert_close_absolute(output, golden[f"{prefix}{batch}"], GOLDEN_NETWORK_ABSOLUTE, name)
            compared += 1
    assert compared >= 1


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_all_protocols_give_the_same_networks(protocol: int) -> None:
    expected = samples.networks()
    networks = load_network(io.BytesIO(pickle.dumps(samples.tensorflow_tuple(), protocol)))
    for name, network in expected.items():
        for key, tensor in network.state_dict().items():
            assert torch.equal(networks[name].state_dict()[key], tensor), f"{name} {key}"


def test_loading_leaves_the_random_numbers_alone() -> None:
    state = torch.get_rng_state()
    load_network(DATA / "gen_e.pkl")
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_come_in_evaluation_mode_without_gradients() -> None:
    networks = load_network(DATA / "gen_e.pkl")
    for name in ("G", "D", "G_ema", "Q", "Q_ema"):
        assert not networks[name].training
        assert not any(parameter.requires_grad for parameter in networks[name].parameters())


def test_a_missing_variable_is_named() -> None:
    networks = samples.tensorflow_tuple()
    networks[1].variables = [entry for entry in networks[1].variables if entry[0] != "4x4/Conv/bias"]
    with pytest.raises(CheckpointError, match="4x4/Conv/bias"):
        load_network(io.BytesIO(pickle.dumps(networks, 4)))


def test_an_unknown_building_function_is_named() -> None:
    networks = samples.tensorflow_tuple()
    networks[0].build_func_name = "G_progressive"
    with pytest.raises(CheckpointError, match="G_progressive"):
        load_network(io.BytesIO(pickle.dumps(networks, 4)))


def test_an_unsupported_argument_is_named() -> None:
    networks = samples.tensorflow_tuple()
    networks[1].static_kwargs["architecture"] = "skip"
    with pytest.raises(CheckpointError, match="architecture='skip'"):
        load_network(io.BytesIO(pickle.dumps(networks, 4)))


def test_an_unknown_version_is_named() -> None:
    networks = samples.tensorflow_tuple()
    networks[2].version = 9
    with pytest.raises(CheckpointError, match="version 9"):
        load_network(io.BytesIO(pickle.dumps(networks, 4)))
