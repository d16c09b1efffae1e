"""Small checkpoints of every format, made by hand so that no other program is needed."""

from __future__ import annotations

import argparse
import copy
import io
import pickle
import sys
from collections import OrderedDict
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn

from sc_layers.checkpoints.state import NetworkState
from sc_layers.checkpoints.write import write_pkl, write_pt, write_safetensors
from sc_layers.models import (
    Discriminator,
    DiscriminatorConfig,
    Generator,
    GeneratorConfig,
    Recognizer,
    RecognizerConfig,
)
from tests.checkpoints.foreign.variables import variables_from_state_dict
from tests.integrations import toys

MODULES = "[Const-2, ResConv-up-1, C_spgroup-1-2, Noise-1]"
_SIZES = {"fmap_base": 2, "fmap_min": 2, "fmap_max": 2}


def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    generator = GeneratorConfig(resolution=8, num_channels=1, module_list=MODULES, **_SIZES)
    return {
        "G": Generator(generator),
        "D": Discriminator(DiscriminatorConfig(resolution=8, num_channels=1, **_SIZES)),
        "G_ema": Generator(generator),
        "Q": Recognizer(RecognizerConfig(resolution=8, num_channels=1, num_codes=2, **_SIZES)),
    }


def assert_same(network: nn.Module, expected: nn.Module) -> None:
    assert type(network) is type(expected)
    assert network.config == expected.config
    state = network.state_dict()
    assert list(state) == list(expected.state_dict())
    for name, tensor in expected.state_dict().items():
        assert state[name].dtype == tensor.dtype, name
        assert torch.equal(state[name], tensor), name


def states() -> dict[str, NetworkState]:
    return {name: NetworkState.of(name, network) for name, network in networks().items()}


def in_modules(module: str, name: str, value: Any) -> ModuleType:
    """Put `value` where pickle looks for `module.name`, so that it can be pickled under that name."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    setattr(sys.modules[module], name, value)
    value.__module__, value.__qualname__, value.__name__ = module, name, name
    return sys.modules[module]


class Network:
    """Stands in for dnnlib's class; pickles as it does."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(version=4, build_module_src="", components={}, **state)


class EasyDict(dict):
    """Stands in for dnnlib's class."""


def reconstruct(meta: dict[str, Any]) -> Any:
    raise AssertionError("the persistent object was made")


class Persistent:
    """Pickles as an object of a persistent class does: a call with class name, source text and state."""

    def __init__(
        self, class_name: str, state: dict[str, Any], source: str = "raise AssertionError('executed')"
    ) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}

    def __reduce__(self) -> Any:
        return reconstruct, (self.meta,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Persistent:
        return Persistent(self.meta["class_name"], copy.deepcopy(self.meta["state"], memo))


in_modules("dnnlib.tflib.network", "Network", Network)
in_modules("dnnlib.util", "EasyDict", EasyDict)
in_modules("torch_utils.persistence", "_reconstruct_persistent_obj", reconstruct)


def tensorflow_network(name: str, function: str, network: nn.Module, arguments: dict[str, Any]) -> Network:
    """One of our networks as the authors' program pickles it."""
    variables = variables_from_state_dict(network.config, network.state_dict())  # type: ignore[arg-type]
    scoped = {key: value[()] if value.ndim == 0 else value for key, value in variables.items()}
    synthesis = [(key[12:], value) for key, value in scoped.items() if key.startswith("G_synthesis/")]
    own = [(key, value) for key, value in scoped.items() if not key.startswith("G_synthesis/")]
    result = Network(name=name, static_kwargs=EasyDict(arguments), build_func_name=function, variables=own)
    if synthesis:
        part = Network(name="G_synthesis", static_kwargs={}, build_func_name="G_synthesis", variables=synthesis)
        result.__dict__["components"] = EasyDict(synthesis=part)
    return result


def tensorflow_tuple() -> tuple[Network, ...]:
    nets = networks()
    common = {"num_channels": 1, "resolution": 8, "label_size": 0, **_SIZES}
    generator = {
        **common,
        "module_list": MODULES[1:-1].split(", "),
        "fmap_decay": 0.15,
        "use_noise": True,
        "latent_size": 2,
        "return_atts": True,
    }
    return (
        tensorflow_network("G", "G_main_ps_sc", nets["G"], generator),
        tensorflow_network("D", "D_stylegan2", nets["D"], common),
        tensorflow_network("I", "head_ps_sc", nets["Q"], {**common, "dlatent_size": 2}),
        tensorflow_network("Gs", "G_main_ps_sc", nets["G_ema"], generator),
    )


def _layer(scope: str, inputs: int, outputs: int, size: int = 3, noise: bool = True) -> dict[str, np.ndarray]:
    """Variables of a modulated convolution of StyleGAN2, with w of 3 entries."""
    shapes: dict[str, tuple[int, ...]] = {
        "weight": (size, size, inputs, outputs),
        "bias": (outputs,),
        "mod_weight": (3, inputs),
        "mod_bias": (inputs,),
    }
    if noise:
        shapes["noise_strength"] = ()
    return {f"{scope}/{name}": _random(shape) for name, shape in shapes.items()}


def _random(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.standard_normal(shape).astype(np.float32)


def stylegan2_network(name: str, function: str, arguments: dict[str, Any], **scopes: dict[str, np.ndarray]) -> Network:
    own = list(scopes.pop("own").items())
    result = Network(name=name, static_kwargs=EasyDict(arguments), build_func_name=function, variables=own)
    result.__dict__["components"] = EasyDict(
        {
            part: Network(name=part, static_kwargs={}, build_func_name=part, variables=list(variables.items()))
            for part, variables in scopes.items()
        }
    )
    return result


def stylegan2_tuple() -> tuple[Network, ...]:
    """A StyleGAN2 of 8x8 pixels, z of 4 and w of 3 entries, widths 8 and 4, with random variables."""
    np.random.seed(0)
    synthesis = {
        "4x4/Const/const": _random((1, 8, 4, 4)),
        **_layer("4x4/Conv", 8, 8),
        **_layer("4x4/ToRGB", 8, 3, 1, noise=False),
        **_layer("8x8/Conv0_up", 8, 4),
        **_layer("8x8/Conv1", 4, 4),
        **_layer("8x8/ToRGB", 4, 3, 1, noise=False),
        **{f"noise{index}": _random((1, 1, size, size)) for index, size in enumerate((4, 8, 8))},
    }
    dense = {"Dense0/weight": (4, 3), "Dense0/bias": (3,), "Dense1/weight": (3, 3), "Dense1/bias": (3,)}
    mapping = {key: _random(shape) for key, shape in dense.items()}
    discriminator = {
        "8x8/FromRGB/weight": (1, 1, 3, 4),
        "8x8/FromRGB/bias": (4,),
        "8x8/Conv0/weight": (3, 3, 4, 4),
        "8x8/Conv0/bias": (4,),
        "8x8/Conv1_down/weight": (3, 3, 4, 8),
        "8x8/Conv1_down/bias": (8,),
        "8x8/Skip/weight": (1, 1, 4, 8),
        "4x4/Conv/weight": (3, 3, 9, 8),
        "4x4/Conv/bias": (8,),
        "4x4/Dense0/weight": (128, 8),
        "4x4/Dense0/bias": (8,),
        "Output/weight": (8, 1),
        "Output/bias": (1,),
    }
    common = {"num_channels": 3, "resolution": 8, "label_size": 0, "fmap_base": 16, "fmap_max": 512}
    generator = common | {"latent_size": 4, "dlatent_size": 3, "mapping_layers": 2, "mapping_fmaps": 3}
    own = {"dlatent_avg": _random((3,)), "lod": np.float32(0)}
    parts = {"own": own, "synthesis": synthesis, "mapping": mapping}
    return (
        stylegan2_network("G", "training.networks_stylegan2.G_main", generator, **parts),
        stylegan2_network(
            "D", "D_stylegan2", common, own={key: _random(shape) for key, shape in discriminator.items()}
        ),
        stylegan2_network("Gs", "G_main", generator, **parts),
    )


def module_state(tensors: dict[str, torch.Tensor], parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The state that an `nn.Module` pickles itself as."""
    parameters = OrderedDict((name, nn.Parameter(tensor)) for name, tensor in tensors.items())
    hooks = {name: OrderedDict() for name in ("_forward_hooks", "_backward_hooks")}
    return {
        "training": False,
        "_parameters": parameters,
        "_buffers": OrderedDict(scale=torch.ones([]), skipped=torch.zeros(2)),
        "_non_persistent_buffers_set": {"skipped"},
        "_modules": OrderedDict(parts),
        **hooks,
        **fields,
    }


def persistent_network(name: str = "Net", **kwargs: Any) -> Persistent:
    """A network as stylegan2-ada-pytorch pickles it: a persistent class with a part of a persistent class."""
    part = Persistent(
        "Part", module_state({"weight": torch.arange(6.0).reshape(2, 3)}, {}, _init_args=(), _init_kwargs={})
    )
    arguments = {"width": 3, "options": EasyDict(depth=1)} | kwargs
    return Persistent(
        name, module_state({"bias": torch.tensor([0.5, -1.0])}, {"part": part}, _init_args=(2,), _init_kwargs=arguments)
    )


def persistence_dict() -> dict[str, Any]:
    names = ("G", "D", "G_ema")
    return {name: persistent_network() for name in names} | {
        "training_set_kwargs": EasyDict(path="images.zip"),
        "augment_pipe": None,
    }


def rosinality_dict() -> dict[str, Any]:
    state = OrderedDict({"style.1.weight": torch.randn(4, 4), "noises.noise_0": torch.randn(1, 1, 4, 4)})
    args = argparse.Namespace(size=4, latent=4, n_mlp=1, channel_multiplier=2)
    return {"g": state, "g_ema": state, "d": OrderedDict({"convs.0.0.weight": torch.randn(2, 3, 1, 1)}), "args": args}


def saved(content: Any, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def all_formats() -> dict[str, bytes]:
    """One valid file of every format, as small as it can be."""
    ours = states()
    tensorflow = tensorflow_tuple()
    return {
        "safetensors": write_safetensors({"G_ema": ours["G_ema"]}, {"kimg": 1}),
        "pt": write_pt({"Q": ours["Q"]}, {"kimg": 1}),
        "pkl": write_pkl({"G": ours["D"], "D": ours["D"], "G_ema": ours["D"]}, {}),
        "tensorflow-2": pickle.dumps(tensorflow, 2),
        "tensorflow-4": pickle.dumps(tensorflow[:2] + tensorflow[3:], 4),
        "tensorflow-5": pickle.dumps(tensorflow[:2] + tensorflow[3:], 5),
        "persistence": pickle.dumps(persistence_dict(), 4),
        "rosinality": saved(rosinality_dict()),
        "rosinality-old": saved(rosinality_dict(), zipped=False),
    }


class _ToyPickler(pickle.Pickler):
    """Pickles the toy networks of the integrations' tests as objects of persistent classes."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj).__module__ != toys.__name__:
            return NotImplemented
        return Persistent(type(obj).__name__, obj.__dict__).__reduce__()


def pickled(content: Any) -> bytes:
    """A file as stylegan2-ada-pytorch and stylegan3 write it, of toy networks."""
    buffer = io.BytesIO()
    _ToyPickler(buffer, 4).dump(content)
    return buffer.getvalue()
