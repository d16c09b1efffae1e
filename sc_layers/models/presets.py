"""Networks for well-known data sets: the authors' CelebA networks, and ours in the same manner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .config import check_power_of_two
from .discriminator import DiscriminatorConfig, RecognizerConfig
from .generator import GeneratorConfig
from .module_list import ConstSpec, ConvSpec, GlobalSpec, ModuleSpec, NoiseSpec, SpatialSpec

_NUM_RECTS = 4


def _sizes(first: int, last: int) -> list[int]:
    """The powers of two from the first to the last."""
    return [2**power for power in range(first.bit_length() - 1, last.bit_length())]


@dataclass(frozen=True)
class NetworkPreset:
    """Configurations of the three networks of one model.

    Args:
        name: the preset's name.
        generator: configuration of the generator.
        discriminator: configuration of the discriminator.
        recognizer: configuration of the recogniser, which has as many outputs as the generator has codes.
    """

    name: str
    generator: GeneratorConfig
    discriminator: DiscriminatorConfig
    recognizer: RecognizerConfig

    def widened(self, factor: float) -> NetworkPreset:
        """The same networks with `factor` times as many channels everywhere, 1 at least.

        >>> network_preset("demo").widened(2).discriminator.fmap_max
        128
        """
        generator, discriminator = self.generator.widened(factor), self.discriminator.widened(factor)
        return NetworkPreset(self.name, generator, discriminator, self.recognizer.widened(factor))


def _authors_layout(
    channels: int, resolution: int, codes: Mapping[int, ModuleSpec], noise: bool = False
) -> tuple[ModuleSpec, ...]:
    """The layout of the authors' CelebA network: one level for each resolution, then two more convolutions.

    A level is an upsampling block, the module of `codes` that reads codes at features of its size, where there is one,
    a block, and, with `noise`, two convolutions with noise. Codes at 4x4 pixels, which theirs has not, get a block too.
    """
    modules: list[ModuleSpec] = [ConstSpec(channels)]
    for size in _sizes(4, resolution):
        if size > 4:
            modules.append(ConvSpec("up", 1, residual=True))
        if size in codes:
            modules.append(codes[size])
        if size > 4 or size in codes:
            modules.append(ConvSpec("id", 1, residual=True))
            modules += [NoiseSpec(2)] * noise
    return (*modules, ConvSpec("id", 2, residual=True))


def _authors_networks(name: str, resolution: int, num_channels: int, modules: tuple[ModuleSpec, ...]) -> NetworkPreset:
    """Widths of the authors' CelebA networks around a module list."""
    shared: dict[str, Any] = {
        "resolution": resolution,
        "num_channels": num_channels,
        "fmap_decay": 1.0,
        "fmap_min": 64,
        "fmap_max": 512,
    }
    generator = GeneratorConfig(module_list=modules, fmap_base=1024, nf_scale=6, **shared)
    return NetworkPreset(
        name,
        generator,
        DiscriminatorConfig(fmap_base=2048, **shared),
        RecognizerConfig(fmap_base=2048, num_codes=generator.num_codes, **shared),
    )


def _small_networks(name: str, resolution: int, num_channels: int, modules: tuple[ModuleSpec, ...]) -> NetworkPreset:
    """Three networks of equal widths: 16 channels at the image's resolution, doubled with every halving, at most 64.

    The recogniser has no minibatch standard deviation, so that its output depends on one image alone.
    """
    shared: dict[str, Any] = {
        "resolution": resolution,
        "num_channels": num_channels,
        "fmap_base": 8 * resolution,
        "fmap_decay": 1.0,
        "fmap_min": 16,
        "fmap_max": 64,
    }
    generator = GeneratorConfig(module_list=modules, nf_scale=None, **shared)
    return NetworkPreset(
        name,
        generator,
        DiscriminatorConfig(**shared),
        RecognizerConfig(num_codes=generator.num_codes, minibatch_std=False, **shared),
    )


def _celeba(resolution: int, num_channels: int) -> NetworkPreset:
    """The authors' published CelebA networks: at 128x128 five groups of 5 codes, at 8x8 to 128x128 pixels."""
    codes = dict.fromkeys(_sizes(8, resolution), SpatialSpec(_NUM_RECTS, 5))
    modules = _authors_layout(512, resolution, codes, noise=True)
    return _authors_networks("celeba", resolution, num_channels, modules)


def _ffhq(resolution: int, num_channels: int) -> NetworkPreset:
    """Ours: the CelebA networks with one level for each resolution up to 512x512.

    The authors publish no FFHQ module list; their released model has 36 codes, which six groups of 6, at 8x8 to
    256x256 pixels, give here.
    """
    codes = dict.fromkeys(_sizes(8, 256), SpatialSpec(_NUM_RECTS, 6))
    modules = _authors_layout(512, resolution, codes, noise=True)
    return _authors_networks("ffhq", resolution, num_channels, modules)


def _shapes3d(resolution: int, num_channels: int) -> NetworkPreset:
    """Ours: 2 codes at 4x4, 3 at 8x8 and 3 at 32x32 pixels, or at the last size before, in networks twice as wide.

    So wide they draw more than one object, and three fine codes suffice for three hues: `examples/README.md`.
    """
    codes = {4: 2, 8: 3, min(resolution, 32): 3}
    modules = _authors_layout(64, resolution, {size: SpatialSpec(_NUM_RECTS, count) for size, count in codes.items()})
    return _small_networks("shapes3d", resolution, num_channels, modules).widened(2)


def _dsprites(resolution: int, num_channels: int) -> NetworkPreset:
    """Ours: 2 codes at 4x4 and 4 at 16x16 pixels, or at the last size before, which act everywhere.

    The coarse ones can move a sprite, the others form it: `examples/README.md`. The paper uses no spatial constriction
    on DSprites (Sec. 4.4): a sprite may be anywhere.
    """
    modules = _authors_layout(64, resolution, {4: GlobalSpec(2), min(resolution, 16): GlobalSpec(4)})
    return _small_networks("dsprites", resolution, num_channels, modules)


def _demo(resolution: int, num_channels: int) -> NetworkPreset:
    """Ours: two groups of 5 codes at 8x8 and 16x16 pixels, which learn the hues of 3D shapes in ten minutes."""
    modules = _authors_layout(64, resolution, dict.fromkeys((8, 16), SpatialSpec(_NUM_RECTS, 5)))
    return _small_networks("demo", resolution, num_channels, modules)


_Builder = Callable[[int, int], NetworkPreset]
# Builder, resolution and colour channels of every preset.
_PRESETS: dict[str, tuple[_Builder, int, int]] = {
    "celeba": (_celeba, 128, 3),
    "ffhq": (_ffhq, 512, 3),
    "shapes3d": (_shapes3d, 32, 3),
    "dsprites": (_dsprites, 32, 1),
    "demo": (_demo, 32, 3),
}
PRESET_NAMES = tuple(_PRESETS)


def network_preset(name: str, resolution: int | None = None, num_channels: int | None = None) -> NetworkPreset:
    """The networks of a preset.

    Args:
        name: one of `PRESET_NAMES`.
        resolution: size of the images in pixels, a power of two from 8; None stands for that of the data set. Other
            resolutions have fewer or more levels, and where these levels carry codes, fewer or more codes.
        num_channels: colour channels of the images; None stands for those of the data set.

    Returns:
        The configurations of generator, discriminator and recogniser.

    Raises:
        ValueError: an unknown name or a resolution that is none.
    """
    if name not in _PRESETS:
        raise ValueError(f"unknown preset {name!r}; known are {', '.join(PRESET_NAMES)}")
    build, usual_resolution, usual_channels = _PRESETS[name]
    resolution = usual_resolution if resolution is None else resolution
    check_power_of_two(resolution, 8)
    return build(resolution, usual_channels if num_channels is None else num_channels)
