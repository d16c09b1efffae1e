"""Importing the network classes of a code base from the user's own checkout, patched or not."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ...integrations import compat


@dataclass(frozen=True)
class _Layout:
    """Where a code base keeps its generators.

    Attributes:
        repository: what people call it.
        marker: file by which a checkout is recognised.
        modules: names of modules by the beginning of a tensor's name that only their generators have, tried in order.
        arguments: names of constructor arguments that its generators alone have.
    """

    repository: str
    marker: str
    modules: dict[str, str]
    arguments: tuple[str, ...] = ()


_LAYOUTS = (
    _Layout(
        "stylegan3",
        "training/networks_stylegan3.py",
        {"synthesis.L": "training.networks_stylegan3", "synthesis.b": "training.networks_stylegan2"},
        ("channel_base", "channel_max", "num_fp16_res"),
    ),
    _Layout(
        "stylegan2-ada-pytorch", "training/networks.py", {"synthesis.b": "training.networks"}, ("synthesis_kwargs",)
    ),
    _Layout("rosinality's stylegan2-pytorch", "model.py", {"to_rgbs.0.iwt.": "swagan", "convs.": "model"}),
)


def generator_module(directory: Path, tensors: Collection[str], arguments: Collection[str] = ()) -> ModuleType:
    """Import the module of a checkout whose generator has these tensors. The checkout stays on `sys.path`.

    Args:
        directory: top of the checkout, whose code is run.
        tensors: names in the generator's state dict.
        arguments: names of the arguments that it was made with.

    Raises:
        NotADirectoryError: no directory.
        ValueError: no checkout of a known code base, or one that has no such generator.
        ImportError: its import fails, or a module of its name from elsewhere is loaded already.
    """
    directory = directory.resolve()
    if not directory.is_dir():
        raise NotADirectoryError(f"--code must be the directory of a code base, and {directory} is none")
    layout = next((layout for layout in _LAYOUTS if (directory / layout.marker).is_file()), None)
    if layout is None:
        known = ", ".join(f"{layout.repository} ({layout.marker})" for layout in _LAYOUTS)
        raise ValueError(f"{directory} is no checkout of a known code base. Known by these files: {known}")
    for other in _LAYOUTS:
        if other is not layout and not set(other.arguments).isdisjoint(arguments):
            raise ValueError(
                f"this is a {other.repository} file, and the checkout {directory} is one of {layout.repository}: give "
                "the checkout of the code base that wrote the file"
            )
    for start, name in layout.modules.items():
        if any(tensor.startswith(start) for tensor in tensors):
            return _import(name, directory)
    raise ValueError(
        f"{directory} is a checkout of {layout.repository}, whose generators have no tensors such as "
        f"{next(iter(tensors), 'none at all')}: give the checkout of the code base that wrote the file"
    )


def _import(name: str, directory: Path) -> ModuleType:
    compat.provide_modules()
    if str(directory) not in sys.path:
        sys.path.insert(0, str(directory))
    try:
        with compat.without_cuda_builds():
            module = importlib.import_module(name)
    except Exception as error:  # whatever the code base's own code raises
        raise ImportError(f"importing {name} of {directory} failed: {type(error).__name__}: {error}") from error
    source = Path(module.__file__ or "").resolve()
    if not source.is_relative_to(directory):
        raise ImportError(f"{name} of {directory} cannot be imported: {source} has that name and is loaded already")
    custom_ops: Any = sys.modules.get("torch_utils.custom_ops")  # only NVlabs' code bases have it
    if custom_ops is not None:
        custom_ops.get_plugin = compat.importable(custom_ops.get_plugin)
    return module
