"""Networks of the golden files, built from the authors' arguments and variables."""

from __future__ import annotations

import functools
import json
from typing import Any

import torch
from torch import nn

from sc_layers.checkpoints.foreign.tf_variables import config_from_tf, state_dict_from_tf
from sc_layers.models import Discriminator, Generator, Recognizer
from sc_layers.models.config import NetworkConfig
from tests.golden import Golden, load_golden

FILES = tuple(f"gen_{letter}" for letter in "abcde")
_CLASSES: dict[str, type[nn.Module]] = {"G": Generator, "D": Discriminator, "I": Recognizer}

# Loading takes longer than most tests.
load = functools.cache(load_golden)


def names(golden: Golden) -> list[str]:
    """The networks in the file: Gs and Is are the averaged G and I."""
    return [name for name in ("Gs", "D", "I", "Is") if golden.group(f"{name}/")]


def config(golden: Golden, name: str) -> NetworkConfig:
    arguments: dict[str, Any] = golden.config[f"{name[0]}_args"]
    data = {key: golden.config[key] for key in ("resolution", "num_channels", "label_size")}
    return config_from_tf(arguments["func_name"], {**arguments, **data})


def network(golden: Golden, name: str) -> nn.Module:
    """The network with the golden variables."""
    its_config = config(golden, name)
    made = _CLASSES[name[0]](its_config)
    made.load_state_dict(state_dict_from_tf(its_config, golden.group(f"{name}/")))
    return made


def initial_statistics(golden: Golden) -> dict[str, list[tuple[str, list[int], bool, float, float]]]:
    """By network: name, shape, trainable, mean and standard deviation of each variable of a fresh official network."""
    statistics: dict[str, list[tuple[str, list[int], bool, float, float]]] = json.loads(
        str(golden.numpy("init_stats_json"))
    )
    return statistics


def small_generator(modules: str, resolution: int, **fields: Any) -> Generator:
    """A generator 6 channels wide with non-trivial biases, strengths and noise."""
    from sc_layers.models import GeneratorConfig, parse_module_list

    torch.manual_seed(1)
    widths = {"fmap_min": 6, "fmap_max": 6, **fields}
    made = Generator(GeneratorConfig(module_list=parse_module_list(modules), resolution=resolution, **widths))
    for name, parameter in made.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            nn.init.normal_(parameter, std=0.5)
    return made
