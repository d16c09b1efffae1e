"""StyleGAN2's own TensorFlow networks, under the names that stylegan2-ada-pytorch gives the same weights.

Source: the arguments and variable names of the two programs. TensorFlow stores convolutions as [kh, kw, in, out] and
dense layers as [in, out]; it flips upsampling kernels and adds 1 to modulation styles at run time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...messages import shown
from ..errors import CheckpointError
from ..networks import NetworkRecord

Array = npt.NDArray[Any]
BUILDERS = {"G_main": "Generator", "D_stylegan2": "Discriminator", "D_main": "Discriminator"}

# Theirs: (place, ours). A place is the keyword argument that is itself a dict of arguments, or "" for the class's own.
_GENERATOR_ARGUMENTS = {
    "latent_size": ("", "z_dim"),
    "label_size": ("", "c_dim"),
    "dlatent_size": ("", "w_dim"),
    "resolution": ("", "img_resolution"),
    "num_channels": ("", "img_channels"),
    "mapping_layers": ("mapping_kwargs", "num_layers"),
    "label_fmaps": ("mapping_kwargs", "embed_features"),
    "mapping_fmaps": ("mapping_kwargs", "layer_features"),
    "mapping_nonlinearity": ("mapping_kwargs", "activation"),
    "mapping_lrmul": ("mapping_kwargs", "lr_multiplier"),
    "fmap_base": ("synthesis_kwargs", "channel_base"),
    "fmap_max": ("synthesis_kwargs", "channel_max"),
    "num_fp16_res": ("synthesis_kwargs", "num_fp16_res"),
    "conv_clamp": ("synthesis_kwargs", "conv_clamp"),
    "architecture": ("synthesis_kwargs", "architecture"),
    "resample_kernel": ("synthesis_kwargs", "resample_filter"),
    "use_noise": ("synthesis_kwargs", "use_noise"),
    "nonlinearity": ("synthesis_kwargs", "activation"),
    "w_avg_beta": ("mapping_kwargs", "w_avg_beta"),
}
_GENERATOR_DEFAULTS = {
    "latent_size": 512,
    "label_size": 0,
    "dlatent_size": 512,
    "resolution": 1024,
    "num_channels": 3,
    "fmap_base": 16384,
}
_DISCRIMINATOR_ARGUMENTS = {
    "label_size": ("", "c_dim"),
    "resolution": ("", "img_resolution"),
    "num_channels": ("", "img_channels"),
    "architecture": ("", "architecture"),
    "fmap_base": ("", "channel_base"),
    "fmap_max": ("", "channel_max"),
    "num_fp16_res": ("", "num_fp16_res"),
    "conv_clamp": ("", "conv_clamp"),
    "resample_kernel": ("block_kwargs", "resample_filter"),
    "nonlinearity": ("block_kwargs", "activation"),
    "mapping_layers": ("mapping_kwargs", "num_layers"),
    "mapping_fmaps": ("mapping_kwargs", "layer_features"),
    "mapping_lrmul": ("mapping_kwargs", "lr_multiplier"),
    "mbstd_group_size": ("epilogue_kwargs", "mbstd_group_size"),
    "mbstd_num_features": ("epilogue_kwargs", "mbstd_num_channels"),
}
_DISCRIMINATOR_DEFAULTS = {"label_size": 0, "resolution": 1024, "num_channels": 3, "fmap_base": 16384}
_GROUP_SIZE: dict[str, int | None] = {"D_stylegan2": 4, "D_main": None}
# What has no say in the network that the other program builds, and the values that it could only have there.
_IGNORED = {"truncation_psi", "truncation_cutoff", "style_mixing_prob", "structure", "func_name", "freeze_layers"}
_FIXED = {"fmap_decay": 1.0, "fmap_min": 1, "normalize_latents": True, "dtype": "float32", "fused_modconv": True}


def _conv(array: Array) -> Array:
    return np.transpose(array, (3, 2, 0, 1))


def _flipped_conv(array: Array) -> Array:
    return _conv(np.flip(array, (0, 1)))


def _dense(array: Array) -> Array:
    return np.transpose(array)


def _plus_one(array: Array) -> Array:
    return np.asarray(array + 1)


def _first(array: Array) -> Array:
    return array.reshape(array.shape[1:]) if len(array) == 1 else array


def _plane(array: Array) -> Array:
    return _first(_first(array))


def _same(array: Array) -> Array:
    return array


def _noise_name(match: re.Match[str]) -> str:
    """Noise 0 belongs to 4x4; 2n - 1 and 2n to the first and second layer of 4 * 2^n pixels."""
    index = int(match[1])
    return f"synthesis.b{4 * 2 ** ((index + 1) // 2)}.conv{1 if index % 2 == 0 else 0}.noise_const"


_Rule = tuple[str, str | Callable[[re.Match[str]], str], Callable[[Array], Array], int]


def _styled_layer(theirs: str, ours: str, conv: Callable[[Array], Array]) -> tuple[_Rule, ...]:
    return (
        (f"{theirs}/weight", f"{ours}.weight", conv, 4),
        (f"{theirs}/bias", f"{ours}.bias", _same, 1),
        (f"{theirs}/noise_strength", f"{ours}.noise_strength", _same, 0),
        (f"{theirs}/mod_weight", f"{ours}.affine.weight", _dense, 2),
        (f"{theirs}/mod_bias", f"{ours}.affine.bias", _plus_one, 1),
    )


_GENERATOR_RULES: tuple[_Rule, ...] = (
    ("dlatent_avg", "mapping.w_avg", _same, 1),
    ("mapping/LabelEmbed/weight", "mapping.embed.weight", _dense, 2),
    ("mapping/LabelEmbed/bias", "mapping.embed.bias", _same, 1),
    (r"mapping/Dense(\d{1,3})/weight", r"mapping.fc\1.weight", _dense, 2),
    (r"mapping/Dense(\d{1,3})/bias", r"mapping.fc\1.bias", _same, 1),
    ("synthesis/4x4/Const/const", "synthesis.b4.const", _first, 4),
    (r"synthesis/noise(\d{1,2})", _noise_name, _plane, 4),
    *_styled_layer("synthesis/4x4/Conv", "synthesis.b4.conv1", _conv),
    *_styled_layer(r"synthesis/(\d+)x\1/Conv0_up", r"synthesis.b\1.conv0", _flipped_conv),
    *_styled_layer(r"synthesis/(\d+)x\1/Conv1", r"synthesis.b\1.conv1", _conv),
    *_styled_layer(r"synthesis/(\d+)x\1/ToRGB", r"synthesis.b\1.torgb", _conv),
    (r"synthesis/(\d+)x\1/Skip/weight", r"synthesis.b\1.skip.weight", _flipped_conv, 4),
)
_DISCRIMINATOR_RULES: tuple[_Rule, ...] = (
    (r"(\d+)x\1/FromRGB/weight", r"b\1.fromrgb.weight", _conv, 4),
    (r"(\d+)x\1/FromRGB/bias", r"b\1.fromrgb.bias", _same, 1),
    (r"(\d+)x\1/Conv(\d)(?:_down)?/weight", r"b\1.conv\2.weight", _conv, 4),
    (r"(\d+)x\1/Conv(\d)(?:_down)?/bias", r"b\1.conv\2.bias", _same, 1),
    (r"(\d+)x\1/Skip/weight", r"b\1.skip.weight", _conv, 4),
    ("LabelEmbed/weight", "mapping.embed.weight", _dense, 2),
    ("LabelEmbed/bias", "mapping.embed.bias", _same, 1),
    (r"Mapping(\d)/weight", r"mapping.fc\1.weight", _dense, 2),
    (r"Mapping(\d)/bias", r"mapping.fc\1.bias", _same, 1),
    ("4x4/Conv/weight", "b4.conv.weight", _conv, 4),
    ("4x4/Conv/bias", "b4.conv.bias", _same, 1),
    ("4x4/Dense0/weight", "b4.fc.weight", _dense, 2),
    ("4x4/Dense0/bias", "b4.fc.bias", _same, 1),
    ("Output/weight", "b4.out.weight", _dense, 2),
    ("Output/bias", "b4.out.bias", _same, 1),
)
_UNUSED = re.compile(r"lod|(?:synthesis/)?lod|(?:ToRGB|FromRGB)_lod.*")


def _renamed(rules: tuple[_Rule, ...], name: str, array: Array) -> tuple[str, Tensor]:
    for pattern, target, convert, dimensions in rules:
        match = re.fullmatch(pattern, name)
        if match:
            if array.ndim != dimensions or math.prod(array.shape) == 0:
                raise CheckpointError(f"the variable {name:.80} has shape {array.shape}")
            value = torch.from_numpy(np.array(convert(array), dtype=np.float32))
            return target(match) if callable(target) else match.expand(target), value
    raise CheckpointError(f"the variable {name:.80} belongs to no known part of StyleGAN2")


def _arguments(
    given: Mapping[str, Any], defaults: Mapping[str, Any], places: Mapping[str, tuple[str, str]]
) -> dict[str, Any]:
    kwargs: dict[str, Any] = {place: {} for place, _ in places.values() if place}
    for name, value in {**defaults, **given}.items():
        if name in _IGNORED or (name in _FIXED and value == _FIXED[name]):
            continue
        if name not in places:
            raise CheckpointError(f"StyleGAN2 with {name:.80}={shown(value)} is not known to stylegan2-ada-pytorch")
        place, ours = places[name]
        if name == "fmap_base":
            if not isinstance(value, int):
                raise CheckpointError(f"fmap_base must be an integer, got {shown(value)}")
            value = 2 * value
        (kwargs[place] if place else kwargs)[ours] = value
    return kwargs


def record_of(function: str, given: Mapping[str, Any], variables: Mapping[str, Array]) -> NetworkRecord:
    """A network of StyleGAN2 as stylegan2-ada-pytorch would describe it.

    Args:
        function: the function that builds it in TensorFlow, one of `BUILDERS`.
        given: its keyword arguments.
        variables: the network's variables by name; those of components stand under `synthesis/` and `mapping/`.

    Raises:
        CheckpointError: arguments or variables that the other program does not have.
    """
    if BUILDERS[function] == "Generator":
        rules, places = _GENERATOR_RULES, _GENERATOR_ARGUMENTS
        defaults: dict[str, Any] = dict(_GENERATOR_DEFAULTS)
    else:
        rules, places = _DISCRIMINATOR_RULES, _DISCRIMINATOR_ARGUMENTS
        defaults = {**_DISCRIMINATOR_DEFAULTS, "mbstd_group_size": _GROUP_SIZE[function]}
    state = dict(_renamed(rules, name, array) for name, array in variables.items() if not _UNUSED.fullmatch(name))
    kwargs = _arguments(given, defaults, places)
    return NetworkRecord(BUILDERS[function], (), kwargs, state, computed=("resample_filter",))
