"""One of our networks as data: the name of its class, its configuration, its state dict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .. import models
from ..messages import shown
from .errors import CheckpointError
from .networks import NetworkRecord, budget_of, check_state
from .pickles.limits import AllocationLimit

NETWORKS = ("G", "D", "G_ema", "Q", "Q_ema", "P")
KINDS = {"Generator": "GeneratorConfig", "Discriminator": "DiscriminatorConfig", "Recognizer": "RecognizerConfig"}
_LARGEST_NUMBER = 65536
_MOST_UPSAMPLINGS = 32
_FEW_MODULES = 100


@dataclass
class NetworkState:
    """One of our networks as data.

    Attributes:
        kind: name of the class, one of `KINDS`.
        config: the configuration, as `to_dict` writes it.
        state: the state dict.
    """

    kind: str
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, name: str, network: nn.Module) -> NetworkState:
        """The data of a network.

        Args:
            name: what to call it in an error, such as `"G_ema"`.
            network: a generator, discriminator or recogniser of this package.

        Raises:
            TypeError: it is none.
        """
        kind = type(network).__name__
        if kind not in KINDS or not type(network).__module__.startswith("sc_layers."):
            raise TypeError(f"{name} must be a {' or '.join(KINDS)} of sc_layers, got {type(network)!r}")
        config: Any = network.config
        return cls(kind, config.to_dict(), network.state_dict())

    def build(self, impl: str = "auto") -> nn.Module:
        """The network, in evaluation mode and without gradients.

        Tensors much larger than the file, that its configuration asks for, are refused before they take memory.

        Args:
            impl: implementation of the generator's constriction layers; other networks have none.

        Raises:
            CheckpointError: an unknown class, an invalid configuration, or tensors that do not fit it.
        """
        if self.kind not in KINDS:
            raise CheckpointError(f"unknown class of network {shown(self.kind)}, expected {', '.join(KINDS)}")
        check_module_list(self.config.get("module_list", ""), len(self.state))
        try:
            with torch.random.fork_rng(devices=[]), AllocationLimit(budget_of(self.state)):
                network = _make(self.kind, self.config, impl)
        except CheckpointError:
            raise
        except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            raise CheckpointError(f"the configuration of the {self.kind} is not valid: {error!s:.500}") from error
        check_state(self.kind, network.state_dict(), self.state)
        network.load_state_dict(self.state)
        return network.eval().requires_grad_(False)


AnyNetwork = NetworkState | NetworkRecord


def _make(kind: str, config: Mapping[str, Any], impl: str) -> nn.Module:
    options = {"impl": impl} if kind == "Generator" else {}
    fields = getattr(models, KINDS[kind]).from_dict(dict(config))
    network: nn.Module = getattr(models, kind)(fields, **options)
    return network


def check_module_list(text: Any, num_tensors: int) -> None:
    """Refuse a module list that is larger than the stored tensors allow, before it is unfolded.

    Args:
        text: the module list, or whatever stands in its place.
        num_tensors: how many tensors the network has.

    Raises:
        CheckpointError: more layers than tensors, or numbers that no network has.
    """
    if not isinstance(text, str):
        raise CheckpointError(f"the module list is a {type(text).__name__}, expected text")
    numbers = [int(digits) for digits in re.findall(r"\d{1,18}", text)]
    layers = [int(digits) for digits in re.findall(r"(?:Conv-(?:up|down|id)|Noise)-(\d{1,18})", text)]
    upsamplings = [int(digits) for digits in re.findall(r"Conv-up-(\d{1,18})", text)]
    if max(numbers, default=0) > _LARGEST_NUMBER or sum(upsamplings) > _MOST_UPSAMPLINGS:
        raise CheckpointError(f"the module list asks for more than any network has: {text:.200}")
    if sum(layers) + text.count(",") > 2 * num_tensors + _FEW_MODULES:
        raise CheckpointError(f"the module list is too long for {num_tensors} tensors")


def num_parameters(state: Mapping[str, Tensor]) -> int:
    """Numbers that a state dict holds."""
    return sum(math.prod(tensor.shape) for tensor in state.values())
