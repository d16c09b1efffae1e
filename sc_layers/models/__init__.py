"""The networks of the paper: generator from a module list, discriminator, recogniser, and presets of them."""

from .discriminator import Discriminator, DiscriminatorConfig, Recognizer, RecognizerConfig
from .generator import Generator, GeneratorConfig
from .module_list import format_module_list, parse_module_list
from .presets import PRESET_NAMES, NetworkPreset, network_preset

__all__ = [
    "PRESET_NAMES",
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "NetworkPreset",
    "Recognizer",
    "RecognizerConfig",
    "format_module_list",
    "network_preset",
    "parse_module_list",
]
