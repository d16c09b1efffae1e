"""The authors' variables from our networks: what the package only does the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sc_layers.checkpoints.foreign.tf_variables import PROGRESSIVE_LEVEL, variables_of
from sc_layers.models import GeneratorConfig
from sc_layers.models.config import NetworkConfig


def variables_from_state_dict(config: NetworkConfig, state: Mapping[str, Tensor]) -> dict[str, np.ndarray[Any, Any]]:
    """float32 arrays by TensorFlow name, in the order of the authors' program: `state_dict_from_tf` backwards."""
    variables: dict[str, np.ndarray[Any, Any]] = {}
    if isinstance(config, GeneratorConfig):
        variables[PROGRESSIVE_LEVEL] = np.zeros([], dtype=np.float32)
    for variable in variables_of(config, state):
        array = torch.empty(variable.shape)
        for view, ours in variable.parts:
            view(array).copy_(ours)
        variables[variable.name] = array.numpy()
    return variables
