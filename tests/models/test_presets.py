"""Presets: the authors' parameter counts, and networks that fit together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sc_layers.models import PRESET_NAMES, Discriminator, Generator, Recognizer, network_preset
from sc_layers.models.module_list import GlobalSpec, NoiseSpec, SpatialSpec, format_module_list
from sc_layers.models.presets import NetworkPreset


def _networks(preset: NetworkPreset) -> tuple[Generator, Discriminator, Recognizer]:
    return Generator(preset.generator), Discriminator(preset.discriminator), Recognizer(preset.recognizer)


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_celeba_has_the_authors_module_list_and_parameter_counts() -> None:
    preset = network_preset("celeba")
    level = "ResConv-up-1, C_spgroup-4-5, ResConv-id-1, Noise-2"
    assert format_module_list(preset.generator.module_list) == f"[Const-512, {', '.join([level] * 5)}, ResConv-id-2]"
    with torch.device("meta"):
        assert tuple(map(_count, _networks(preset))) == (37_302_029, 14_115_521, 14_127_833)


@pytest.mark.parametrize(
    ("name", "resolution", "channels", "codes"),
    [
        ("celeba", 128, 3, 25),
        ("ffhq", 512, 3, 36),
        ("shapes3d", 32, 3, 8),
        ("dsprites", 32, 1, 6),
        ("demo", 32, 3, 10),
    ],
)
def test_presets_have_the_size_of_their_data_set(name: str, resolution: int, channels: int, codes: int) -> None:
    preset = network_preset(name)
    for config in (preset.generator, preset.discriminator, preset.recognizer):
        assert (config.resolution, config.num_channels) == (resolution, channels)
    assert preset.generator.num_codes == preset.recognizer.num_codes == codes


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_networks_of_a_preset_work_together_at_another_size(name: str) -> None:
    preset = network_preset(name, resolution=16, num_channels=2)
    G, D, Q = _networks(preset)
    with torch.no_grad():
        images, masks = G(torch.randn(4, G.num_codes), return_masks=True)
        assert images.shape == (4, 2, 16, 16)
        assert masks.shape == (4, len(G.masked_codes), 16, 16)
        assert D(images).shape == (4, 1)
        assert Q(images).shape == (4, G.num_codes)


def test_demo_has_equal_widths_in_all_networks_and_codes_at_8_and_16_pixels() -> None:
    preset = network_preset("demo")
    specs = preset.generator.module_list
    assert [spec for spec in specs if isinstance(spec, SpatialSpec)] == [SpatialSpec(4, 5)] * 2
    assert not any(isinstance(spec, NoiseSpec) for spec in specs)
    assert preset.generator.module_widths() == (64, 64, 64, 64, 32, 32, 32, 16, 16, 16)
    for config in (preset.discriminator, preset.recognizer):
        assert [config.size_width(size) for size in (4, 8, 16, 32)] == [64, 64, 32, 16]
    assert not preset.recognizer.minibatch_std


@pytest.mark.parametrize("resolution", [16, 32, 64])
def test_shapes3d_has_codes_at_4_8_and_the_finest_size_up_to_32_pixels(resolution: int) -> None:
    preset = network_preset("shapes3d", resolution)
    levels = {
        4: "C_spgroup-4-2, ResConv-id-1",
        8: "ResConv-up-1, C_spgroup-4-3, ResConv-id-1",
        16: "ResConv-up-1, ResConv-id-1",
        32: "ResConv-up-1, ResConv-id-1",
        64: "ResConv-up-1, ResConv-id-1",
    }
    levels[min(resolution, 32)] = levels[8]
    expected = ", ".join(level for size, level in levels.items() if size <= resolution)
    assert format_module_list(preset.generator.module_list) == f"[Const-128, {expected}, ResConv-id-2]"
    assert [preset.discriminator.size_width(size) for size in (4, resolution)] == [128, 32]


@pytest.mark.parametrize(("factor", "widths"), [(2, [128, 128, 64, 32]), (0.25, [16, 16, 8, 4])])
def test_widened_networks_have_the_same_parts_and_widths_in_proportion(factor: float, widths: list[int]) -> None:
    before = network_preset("demo")
    preset = before.widened(factor)
    for config in (preset.discriminator, preset.recognizer):
        assert [config.size_width(size) for size in (4, 8, 16, 32)] == widths
    assert preset.generator.module_widths() == tuple(factor * width for width in before.generator.module_widths())
    assert preset.generator.num_codes == before.generator.num_codes
    assert Generator(preset.generator)(torch.zeros(1, 10)).shape == (1, 3, 32, 32)


def test_networks_are_at_least_one_channel_wide() -> None:
    preset = network_preset("demo").widened(0.001)
    assert set(preset.generator.module_widths()) == {1}
    assert preset.discriminator.size_width(32) == 1


def test_dsprites_has_no_spatial_constriction() -> None:
    specs = network_preset("dsprites").generator.module_list
    assert [str(spec) for spec in specs if isinstance(spec, GlobalSpec)] == ["C_global-2", "C_global-4"]
    assert not any(isinstance(spec, SpatialSpec) for spec in specs)


def test_an_unknown_preset_is_named_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown preset 'lsun'; known are celeba, ffhq, shapes3d, dsprites, demo"):
        network_preset("lsun")


@pytest.mark.parametrize("resolution", [4, 48])
def test_a_resolution_that_is_none_is_refused(resolution: int) -> None:
    with pytest.raises(ValueError, match=f"resolution must be a power of two from 8, got {resolution}"):
        network_preset("demo", resolution=resolution)
