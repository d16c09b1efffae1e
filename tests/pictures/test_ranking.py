"""How far codes move the picture, and how that is written."""

from __future__ import annotations

from pathlib import Path

from sc_layers.checkpoints.opening import open_generator
from sc_layers.metrics.distances import make_distance
from sc_layers.pictures.ranking import code_label, measure_codes
from tests.networks import NUM_CODES, save_small_networks


def test_codes_are_measured_as_the_file_draws_them(tmp_path: Path) -> None:
    lengths = []
    for latents in ("normal", "uniform"):
        network = save_small_networks(tmp_path / f"{latents}.safetensors", training={"latents": latents})
        lengths.append(measure_codes(open_generator(network), make_distance("mse")).per_dim)
    assert lengths[0].shape == (NUM_CODES,)
    assert (lengths[0] != lengths[1]).any()


def test_a_label_has_a_line_for_what_is_known(tmp_path: Path) -> None:
    assert code_label(3, {}) == "code 3"
    assert code_label(3, {3: "smile"}) == "code 3\nsmile"
    network = save_small_networks(tmp_path / "network.safetensors")
    tpl = measure_codes(open_generator(network), make_distance("mse"))
    number, length = code_label(1, {}, tpl).splitlines()
    error = float(tpl.std_per_dim[1]) / 10**0.5  # of ten traversals
    assert number == "code 1"
    assert length == f"tpl {float(tpl.per_dim[1]):.3g} ± {error:.2g}"
