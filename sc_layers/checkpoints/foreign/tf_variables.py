"""The authors' TensorFlow networks as ours: configurations from their keyword arguments, weights from their variables.

TensorFlow stores convolutions as [kh, kw, in, out] and dense layers as [in, out]. Every variable is described by pairs
of views, one into the TensorFlow array and one into our parameter, with equal shapes; copying over the pairs converts
the weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...models.config import NetworkConfig
from ...models.discriminator import Discriminator, DiscriminatorConfig, Recognizer, RecognizerConfig
from ...models.generator import Generator, GeneratorConfig
from ...models.module_list import (
    ConstSpec,
    ConvSpec,
    ModuleSpec,
    NoiseSpec,
    SoftmaxSpec,
    SpatialSpec,
    parse_module_list,
)

_GENERATOR_SCOPE = "G_synthesis"
PROGRESSIVE_LEVEL = "lod"
_View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Variable:
    """A TensorFlow variable and the parts of our state dict that hold it.

    Args:
        name: what the variable is called in TensorFlow.
        shape: the shape that it has there.
        parts: pairs of a function that views (a part of) the TensorFlow array, and our view of the same shape.
    """

    name: str
    shape: tuple[int, ...]
    parts: Sequence[tuple[_View, Tensor]]


def _same(name: str, ours: Tensor) -> Variable:
    return Variable(name, tuple(ours.shape), [(lambda array: array, ours)])


def _conv_weight(name: str, weight: Tensor) -> Variable:
    return _same(name, weight.permute(2, 3, 1, 0))


def _layer(scope: str, state: Mapping[str, Tensor], prefix: str) -> Iterator[Variable]:
    """Weight and, where there is one, bias of a convolution or linear layer."""
    weight = state[f"{prefix}.weight"]
    name = f"{scope}/weight"
    yield _conv_weight(name, weight) if weight.ndim == 4 else _same(name, weight.T)
    if f"{prefix}.bias" in state:
        yield _same(f"{scope}/bias", state[f"{prefix}.bias"])


def _styles(scope: str, state: Mapping[str, Tensor], prefix: str) -> Iterator[Variable]:
    weights, biases = state[f"{prefix}.style_weight"], state[f"{prefix}.style_bias"]
    for k, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        style = f"{scope}/Att_apply/style_mod-{k}/StyleMod"
        yield Variable(f"{style}/weight", (1, weight.numel()), [(lambda array: array.view(2, -1), weight)])
        yield Variable(f"{style}/bias", (bias.numel(),), [(lambda array: array.view(2, -1), bias)])


def _gates(scope: str, state: Mapping[str, Tensor], prefix: str) -> Variable:
    """[C, K * J * 4 * H] in the order h_start, h_end, w_start, w_end, against our two [K, J, 2, H, C]."""
    vertical, horizontal = (state[f"{prefix}.gate_weight_{axis}"].permute(4, 0, 1, 2, 3) for axis in "hw")
    channels, codes, rects, _, size = vertical.shape

    def part(index: int) -> _View:
        return lambda array: array.view(channels, codes, rects, 2, 2, size)[:, :, :, index]

    shape = (channels, codes * rects * 4 * size)
    return Variable(f"{scope}/Att_spatial/weight", shape, [(part(0), vertical), (part(1), horizontal)])


def _conv_module(spec: ConvSpec, index: int, state: Mapping[str, Tensor], prefix: str) -> Iterator[Variable]:
    kind = f"{_GENERATOR_SCOPE}/{_key(spec)}"
    for layer in range(spec.layers):
        yield from _layer(f"{kind}-{index}-{layer}", state, f"{prefix}.convs.{layer}")
    if spec.residual:
        yield from _layer(f"{kind}Resampled-{index}", state, f"{prefix}.skip")


def _noise_module(
    spec: NoiseSpec, index: int, state: Mapping[str, Tensor], prefix: str, first_map: int
) -> Iterator[Variable]:
    for layer in range(spec.layers):
        conv = f"{prefix}.convs.{layer}"
        scope = f"{_GENERATOR_SCOPE}/Noise-{index}-{layer}"
        yield _same(f"{_GENERATOR_SCOPE}/noise{first_map + layer}", state[f"{conv}.noise_map"])
        yield _conv_weight(f"{scope}/weight", state[f"{conv}.weight"])
        yield _same(f"{scope}/noise_strength-{index}-{layer}", state[f"{conv}.noise_strength"])
        yield _same(f"{scope}/bias", state[f"{conv}.bias"])


def _global_module(scope: str, state: Mapping[str, Tensor], prefix: str) -> Iterator[Variable]:
    yield _conv_weight(f"{scope}/weight", state[f"{prefix}.weight"])
    yield _same(f"{scope}/mod_weight", state[f"{prefix}.style.weight"].T)
    yield _same(f"{scope}/mod_bias", state[f"{prefix}.style.bias"])
    yield _same(f"{scope}/bias", state[f"{prefix}.bias"])


def _key(spec: ModuleSpec) -> str:
    """The module's name without its size."""
    return str(spec).rpartition("-")[0]


def _generator_variables(config: GeneratorConfig, state: Mapping[str, Tensor]) -> Iterator[Variable]:
    noise_maps = 0
    for index, spec in enumerate(config.module_list):
        prefix = f"synthesis.layers.{index}"
        scope = f"{_GENERATOR_SCOPE}/{_key(spec)}-{index}"
        if isinstance(spec, ConstSpec):
            yield _same(f"{scope}/const", state[f"{prefix}.const"])
        elif isinstance(spec, ConvSpec):
            yield from _conv_module(spec, index, state, prefix)
        elif isinstance(spec, NoiseSpec):
            yield from _noise_module(spec, index, state, prefix, noise_maps)
            noise_maps += spec.layers
        elif isinstance(spec, SpatialSpec):
            yield _gates(scope, state, prefix)
            yield from _styles(scope, state, prefix)
        elif isinstance(spec, SoftmaxSpec):
            yield _conv_weight(f"{scope}/Att_spatial/weight", state[f"{prefix}.mask_weight"])
            yield from _styles(scope, state, prefix)
        else:
            yield from _global_module(scope, state, prefix)
    yield from _layer(f"{_GENERATOR_SCOPE}/ToRGB", state, "synthesis.to_rgb")


def _trunk_variables(config: DiscriminatorConfig, state: Mapping[str, Tensor]) -> Iterator[Variable]:
    yield from _layer(f"{config.resolution}x{config.resolution}/FromRGB", state, "from_rgb")
    for index, size in enumerate(config.block_sizes()):
        for theirs, ours in {"Conv0": "conv0", "Conv1_down": "conv1", "Skip": "skip"}.items():
            yield from _layer(f"{size}x{size}/{theirs}", state, f"blocks.{index}.{ours}")
    yield from _layer("4x4/Conv", state, "conv")
    yield from _layer("4x4/Dense0", state, "hidden")
    yield from _layer("Output/Dense_VC" if isinstance(config, RecognizerConfig) else "Output", state, "output")


def variables_of(config: NetworkConfig, state: Mapping[str, Tensor]) -> list[Variable]:
    """The variables of the authors' network, in the order of their program, and where our state dict holds them.

    Args:
        config: configuration of the generator, discriminator or recogniser.
        state: the network's state dict.

    Raises:
        TypeError: a configuration of none of them.
    """
    if isinstance(config, GeneratorConfig):
        return list(_generator_variables(config, state))
    if isinstance(config, DiscriminatorConfig):
        return list(_trunk_variables(config, state))
    raise TypeError(f"config must be of a generator, discriminator or recogniser, got {type(config).__name__}")


_NETWORKS: dict[type[NetworkConfig], Callable[[Any], nn.Module]] = {
    GeneratorConfig: lambda config: Generator(config, impl="reference"),
    DiscriminatorConfig: Discriminator,
    RecognizerConfig: Recognizer,
}


def _empty_state(config: NetworkConfig) -> dict[str, Tensor]:
    """Tensors of any content under the names of the network's state dict; empty for a configuration of none."""
    with torch.random.fork_rng(devices=[]):
        return _NETWORKS[type(config)](config).state_dict() if type(config) in _NETWORKS else {}


def _check_names(expected: set[str], given: set[str]) -> None:
    for problem, names in {"missing": expected - given, "unexpected": given - expected}.items():
        if names:
            shown = ", ".join(sorted(names)[:3])
            raise ValueError(f"variables do not fit the network: {len(names)} {problem}, such as {shown}")


def state_dict_from_tf(config: NetworkConfig, variables: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict from the authors' variables.

    Args:
        config: configuration of the generator, discriminator or recogniser, see `config_from_tf`.
        variables: arrays by TensorFlow name, those of the generator's synthesis network under `G_synthesis/`. The
            generator's `lod` (level of progressive growing) may be there; nothing depends on it.

    Returns:
        float32 tensors for `load_state_dict`.

    Raises:
        ValueError: a variable is missing, unexpected or of the wrong shape.
        TypeError: a configuration of no network.
    """
    state = _empty_state(config)
    described = variables_of(config, state)
    ignored = {PROGRESSIVE_LEVEL} if isinstance(config, GeneratorConfig) else set()
    _check_names({variable.name for variable in described}, set(variables) - ignored)
    for variable in described:
        array = torch.from_numpy(np.array(variables[variable.name], dtype=np.float32))
        if tuple(array.shape) != variable.shape:
            raise ValueError(f"{variable.name} must have shape {variable.shape}, got {tuple(array.shape)}")
        for view, ours in variable.parts:
            ours.copy_(view(array))
    return state


# Arguments of the authors' build functions that change the network, and the only value that ours knows. They are
# checked where they are given; their defaults are these values.
_FIXED = {
    "label_size": 0,
    "nonlinearity": "lrelu",
    "resample_kernel": [1, 3, 3, 1],
    "dtype": "float32",
}
_FIXED_GENERATOR = {
    **_FIXED,
    "synthesis_func": "G_synthesis_modular_ps_sc",
    "mapping_func": "G_mapping_ps_sc",
}
_FIXED_TRUNK = {**_FIXED, "architecture": "resnet", "mbstd_num_features": 1}
_DEFAULT_WIDTHS = {"fmap_base": 16 << 10, "fmap_decay": 1.0, "fmap_min": 1, "fmap_max": 512}


def _check_fixed(function: str, given: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for name, value in fixed.items():
        if name in given and given[name] != value:
            raise ValueError(f"{function} with {name}={given[name]!r} is not supported, only {name}={value!r}")


def _shared_fields(function: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `NetworkConfig`."""
    missing = {"resolution", "num_channels"} - set(given)
    if missing:
        raise ValueError(f"{function} needs the argument {', '.join(sorted(missing))}")
    widths = {name: given.get(name, default) for name, default in _DEFAULT_WIDTHS.items()}
    return {
        "resolution": int(given["resolution"]),
        "num_channels": int(given["num_channels"]),
        **{name: float(value) if name == "fmap_decay" else int(value) for name, value in widths.items()},
    }


def _generator_config(function: str, given: Mapping[str, Any]) -> GeneratorConfig:
    _check_fixed(function, given, _FIXED_GENERATOR)
    modules = parse_module_list(given.get("module_list", ""))
    if any(isinstance(spec, NoiseSpec) for spec in modules) and not given.get("use_noise", False):
        raise ValueError(f"{function} with Noise modules but use_noise=False is not supported")
    config = GeneratorConfig(
        module_list=modules, nf_scale=int(given.get("G_nf_scale", 4)), **_shared_fields(function, given)
    )
    for name in ("latent_size", "dlatent_size"):
        if given.get(name, config.num_codes) != config.num_codes:
            raise ValueError(f"{function} has {name}={given[name]}, but its modules read {config.num_codes} codes")
    return config


def _trunk_fields(function: str, given: Mapping[str, Any]) -> dict[str, Any]:
    _check_fixed(function, given, _FIXED_TRUNK)
    group_size = given.get("mbstd_group_size", 4)
    if group_size not in (0, 1, 4):
        raise ValueError(f"{function} with mbstd_group_size={group_size!r} is not supported, only 0, 1 or 4")
    return {**_shared_fields(function, given), "minibatch_std": group_size > 1}


def _discriminator_config(function: str, given: Mapping[str, Any]) -> DiscriminatorConfig:
    return DiscriminatorConfig(**_trunk_fields(function, given))


def _recognizer_config(function: str, given: Mapping[str, Any]) -> RecognizerConfig:
    return RecognizerConfig(num_codes=int(given.get("dlatent_size", 10)), **_trunk_fields(function, given))


_BUILDERS: dict[str, Callable[[str, Mapping[str, Any]], NetworkConfig]] = {
    "G_main_ps_sc": _generator_config,
    "D_stylegan2": _discriminator_config,
    "head_ps_sc": _recognizer_config,
    "head_infogan2": _recognizer_config,
}


def config_from_tf(function: str, arguments: Mapping[str, Any]) -> NetworkConfig:
    """Our configuration of a network of the authors.

    Args:
        function: the name of the function that builds it there, with or without its module, such as
            `"training.ps_sc_networks2.G_main_ps_sc"`; `build_func_name` in their pickles.
        arguments: keyword arguments of that function; `static_kwargs` in their pickles. What it ignores is ignored
            here too.

    Returns:
        A `GeneratorConfig`, `DiscriminatorConfig` or `RecognizerConfig`.

    Raises:
        ValueError: an unknown function, or arguments that ask for a network which ours cannot be.
    """
    name = function.rpartition(".")[2]
    if name not in _BUILDERS:
        raise ValueError(f"unknown network function {function!r}; known are {', '.join(_BUILDERS)}")
    return _BUILDERS[name](name, arguments)
