"""Generators for other runtimes: ONNX files and `torch.export` programs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from .._optional import require
from ..files import write_file
from ..layers import SpatialConstriction
from ..models import Generator
from ..models.modules import NoiseMode

_EXAMPLE_BATCH = 2
_BATCH_AXIS = "batch"


class _Export(nn.Module):
    """codes [N, K] -> images, or images and masks, with all options fixed."""

    def __init__(self, generator: Generator, noise_mode: NoiseMode, masks: bool) -> None:
        super().__init__()
        self.generator = generator
        self.noise_mode: NoiseMode = noise_mode
        self.masks = masks

    def forward(self, codes: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return cast(
            "Tensor | tuple[Tensor, Tensor]",
            self.generator(codes, noise_mode=self.noise_mode, return_masks=self.masks),
        )


def to_program(
    generator: Generator, noise_mode: NoiseMode = "const", masks: bool = False
) -> torch.export.ExportedProgram:
    """The generator as a `torch.export` program of plain PyTorch operators, for any batch.

    Args:
        generator: on the CPU, with `impl="reference"`: a runtime elsewhere does not know our native operator.
        noise_mode: "const" or "none"; a program for other runtimes draws no noise.
        masks: whether it also returns the masks.

    Returns:
        A program codes [N, K] -> images [N, C, H, W], with `masks` also masks [N, M, H, W].

    Raises:
        ValueError: `noise_mode` is "random", or a layer would run the native operator.
    """
    if noise_mode == "random":
        raise ValueError("a program for other runtimes draws no noise: noise_mode must be 'const' or 'none'")
    for layer in generator.modules():
        if isinstance(layer, SpatialConstriction) and layer.impl != "reference":
            raise ValueError(f"export needs layers with impl='reference', got impl={layer.impl!r}")
    example = torch.zeros(_EXAMPLE_BATCH, generator.num_codes)
    batch = {"codes": {0: torch.export.Dim(_BATCH_AXIS)}}
    return torch.export.export(_Export(generator, noise_mode, masks).eval(), (example,), dynamic_shapes=batch)


def save_pt2(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program, see `to_program`, into a file at `path` that `torch.export.load` reads."""
    buffer = io.BytesIO()  # PyTorch's writer ends the process where it meets a full disk
    torch.export.save(program, buffer)
    write_file(path, buffer.getbuffer())


def save_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write a program as ONNX: `codes` to `images` and, where it returns them, `masks`, whose first axis is `batch`.

    Args:
        program: what `to_program` made.
        path: the file.

    Raises:
        ImportError: onnx or onnxscript is missing.
    """
    for module in ("onnx", "onnxscript"):
        require(module, "export")
    outputs = ["images", "masks"][: len(program.graph_signature.user_outputs)]
    exported = torch.onnx.export(
        program, input_names=["codes"], output_names=outputs, dynamo=True, verbose=False, optimize=True
    )
    if exported is None:
        raise RuntimeError("torch.onnx.export returned no program")
    proto = exported.model_proto
    _name_batch(proto.graph)
    write_file(path, proto.SerializeToString())


def _name_batch(graph: Any) -> None:
    """Call the symbol of the codes' first axis `batch` wherever it stands: the exporter numbers symbols as it likes."""
    symbol = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == symbol:
                dim.dim_param = _BATCH_AXIS
