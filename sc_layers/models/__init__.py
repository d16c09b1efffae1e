"""The networks of the paper: generator from a module list, discriminator, recogniser, and presets of them."""

from .discriminator import Discriminator, DiscriminatorConfig, Recognizer, RecognizerConfig
from .generator import Generator, GeneratorConfig
from .module_list import format_module_list, parse_module_list

__all__ = [
    "Discriminator",
    "DiscriminatorConfig",
    "Generator",
    "GeneratorConfig",
    "Recognizer",
    "RecognizerConfig",
    "format_module_list",
    "parse_module_list",
]
