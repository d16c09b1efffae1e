"""Generators on the Hugging Face hub, and in folders of its layout."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch

from .._optional import require
from ..images import image_grid, save_png, to_uint8
from ..models import Generator
from .read import load_network
from .snapshots import WEIGHTS_FILE
from .write import save_network

SAMPLES_FILE = "samples.png"
_SAMPLE_COLUMNS, _SAMPLE_ROWS = 6, 3


def load_pretrained(source: str | os.PathLike[str], *, impl: str = "auto", **download: Any) -> Generator:
    """Load a generator from a folder that `save_pretrained` wrote, or from the hub.

    Args:
        source: path of a folder, or a repository such as `"user/name"`.
        impl: implementation of the constriction layers, "auto", "fused" or "reference".
        download: passed on to `huggingface_hub.ModelHubMixin.from_pretrained`, such as `revision` or `token`.

    Returns:
        The generator, in evaluation mode and without gradients.

    Raises:
        ImportError: huggingface_hub is missing.
        FileNotFoundError: the folder holds no `model.safetensors`.
        CheckpointError: the file is damaged or holds no generator.
    """
    return cast(Generator, _wrapper_class().from_pretrained(os.fspath(source), impl=impl, **download).generator)


def save_pretrained(
    generator: Generator,
    folder: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    **options: Any,
) -> None:
    """Write weights, configuration and a model card with sample pictures into a folder.

    Args:
        generator: what to write.
        folder: made if it does not exist; a card that lies there is kept.
        metrics: scores by name, for the card.
        options: passed on to `huggingface_hub.ModelHubMixin.save_pretrained`.

    Raises:
        ImportError: huggingface_hub is missing.
    """
    wrapper = _wrapper_class()(generator)
    wrapper.save_pretrained(Path(folder), model_card_kwargs={"metrics": dict(metrics or {})}, **options)


def push_to_hub(
    generator: Generator, repo_id: str, *, metrics: Mapping[str, float] | None = None, **options: Any
) -> str:
    """Upload what `save_pretrained` writes.

    Args:
        generator: what to upload.
        repo_id: repository such as `"user/name"`.
        metrics: scores by name, for the card.
        options: passed on to `huggingface_hub.ModelHubMixin.push_to_hub`, such as `token` or `private`.

    Returns:
        The address of the commit.

    Raises:
        ImportError: huggingface_hub is missing.
    """
    wrapper = _wrapper_class()(generator)
    return str(wrapper.push_to_hub(repo_id, model_card_kwargs={"metrics": dict(metrics or {})}, **options))


def model_card(generator: Generator, metrics: Mapping[str, float]) -> str:
    """Text of the model card: pictures, what the network is made of, and scores.

    Args:
        generator: the network.
        metrics: scores by name; a table of them ends the card.
    """
    config = generator.config
    lines = [
        f"![Pictures of random codes]({SAMPLES_FILE})",
        "",
        f"A generator with {generator.num_codes} codes, {config.resolution}x{config.resolution} pixels, made with",
        "sc-layers: spatial constriction and perceptual simplicity.",
        "",
        "```python",
        "import torch",
        "from sc_layers.checkpoints.hub import load_pretrained",
        "",
        'generator = load_pretrained("this repository or folder")',
        f"images = generator(torch.randn(1, {generator.num_codes}))",
        "```",
        "",
        f"Modules: `{config.to_dict()['module_list']}`",
    ]
    if metrics:
        rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items()]
        lines += ["", "| metric | value |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


@torch.no_grad()
def save_samples(generator: Generator, path: Path) -> None:
    """Write a grid of pictures of normal codes, the same ones each time.

    Args:
        generator: draws the pictures, with its stored noise.
        path: the file to write, a PNG.
    """
    parameter = next(generator.parameters())
    codes = torch.randn(
        _SAMPLE_COLUMNS * _SAMPLE_ROWS, generator.num_codes, generator=torch.Generator().manual_seed(0)
    ).to(parameter.device)
    images = cast(torch.Tensor, generator(codes, noise_mode="const"))
    save_png(image_grid(to_uint8(images).cpu(), _SAMPLE_COLUMNS, outline=False), path)


@functools.cache
def _wrapper_class() -> Any:
    """A generator within the library's mixin; made here so that the library is only needed for this."""
    hub = require("huggingface_hub", "hub")
    base: Any = hub.ModelHubMixin

    class PretrainedGenerator(base, library_name="sc-layers", tags=["image-generation", "sc-layers"]):  # type: ignore[call-arg, misc, valid-type]
        def __init__(self, generator: Generator) -> None:
            self.generator = generator
            self._hub_mixin_config = generator.config.to_dict()

        def _save_pretrained(self, save_directory: Path) -> None:
            save_network(save_directory / WEIGHTS_FILE, G_ema=self.generator)
            save_samples(self.generator, save_directory / SAMPLES_FILE)

        @classmethod
        def _from_pretrained(cls, *, model_id: str, impl: str = "auto", **download: Any) -> Any:
            if os.path.isdir(model_id):
                path = Path(model_id) / WEIGHTS_FILE
            else:
                path = Path(hub.hf_hub_download(model_id, WEIGHTS_FILE, **download))
            networks = load_network(path, impl=impl)
            if "G_ema" not in networks:
                raise ValueError(f"{path} holds no averaged generator G_ema")
            return cls(networks["G_ema"])

        def generate_model_card(self, metrics: Mapping[str, float] | None = None) -> Any:
            data = self._hub_mixin_info.model_card_data.to_yaml()
            return hub.ModelCard(f"---\n{data}\n---\n\n{model_card(self.generator, metrics or {})}")

    return PretrainedGenerator
