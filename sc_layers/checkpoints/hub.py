"""Networks on the Hugging Face hub, and in folders of its layout."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch

from .._optional import require
from ..images import image_grid, save_png, to_uint8
from ..models import Generator
from ..models.latents import draw_codes, recorded_latents
from ..pictures.ranking import code_label
from ..pictures.sweeps import sweep_codes
from .opening import code_names, generator_name, recognizer_of
from .read import load_network
from .snapshots import WEIGHTS_FILE
from .write import save_network

SAMPLES_FILE, TRAVERSAL_FILE = "samples.png", "traversal.png"
_SAMPLE_COLUMNS, _SAMPLE_ROWS = 6, 3
_PATIENCE = 3.0  # seconds until a hub that does not answer is given up


def load_pretrained(source: str | os.PathLike[str], *, impl: str = "auto", **download: Any) -> Generator:
    """Load a generator from a folder that `save_pretrained` wrote, or from the hub.

    Args:
        source: path of a folder, or a repository such as `"user/name"`.
        impl: implementation of the constriction layers, "auto", "fused" or "reference".
        download: passed on to `huggingface_hub.hf_hub_download`, such as `revision` or `token`.

    Returns:
        The generator, in evaluation mode and without gradients. `load_network` of the same file gives the recogniser
        and what else it holds.

    Raises:
        ImportError: huggingface_hub is missing.
        FileNotFoundError: the folder holds no `model.safetensors`.
        OSError: the hub can't be reached, or has no such repository.
        CheckpointError: the file is damaged.
        ValueError: the file holds no averaged generator.
    """
    source = os.fspath(source)
    path = Path(source) / WEIGHTS_FILE if os.path.isdir(source) else _fetched(source, download)
    networks = load_network(path, impl=impl)
    if "G_ema" not in networks:
        raise ValueError(f"{path} holds no averaged generator G_ema")
    return cast(Generator, networks["G_ema"])


def _fetched(repository: str, options: Mapping[str, Any]) -> Path:
    hub = require("huggingface_hub", "hub")
    refusal = _out_of_reach()
    # The library tries again and again for half a minute; a copy that it keeps is had without asking the hub.
    options = {**options, "local_files_only": True} if refusal else options
    try:
        return Path(hub.hf_hub_download(repository, WEIGHTS_FILE, **options))
    except (OSError, hub.errors.HfHubHTTPError, hub.errors.HFValidationError) as error:
        reason = refusal or _first_line(error)
        raise OSError(f"{repository} is neither a folder here nor had from the hub: {reason}") from error


def _out_of_reach() -> str | None:
    """Why the hub does not answer, or None."""
    address = require("huggingface_hub.constants", "hub").ENDPOINT
    try:
        require("huggingface_hub.utils", "hub").get_session().head(address, timeout=_PATIENCE)
    except Exception as error:  # of whichever library for HTTP the hub's has
        return f"{address} does not answer, {_first_line(error)}"
    return None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def save_pretrained(
    networks: Generator | Mapping[str, Any],
    folder: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
    dataset: str | None = None,
    **options: Any,
) -> None:
    """Write weights, configuration and a model card with pictures into a folder.

    Args:
        networks: what `load_network` gave, of which the generator, the recogniser and the settings are kept; or a
            generator alone.
        folder: made if it does not exist; a card that lies there is kept.
        metrics: scores by name, for the card.
        license: the hub's name of a licence, such as "apache-2.0" or "cc-by-4.0", for the card.
        dataset: what the networks were trained on, for the card; None takes what the settings say.
        options: passed on to `huggingface_hub.ModelHubMixin.save_pretrained`.

    Raises:
        ImportError: huggingface_hub or pillow is missing.
        ValueError: there is no generator.
    """
    published = _Published.of(networks, metrics, license, dataset)
    _wrapper_class()(published).save_pretrained(Path(folder), **options)


def push_to_hub(
    networks: Generator | Mapping[str, Any],
    repo_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    license: str | None = None,
    dataset: str | None = None,
    **options: Any,
) -> str:
    """Upload what `save_pretrained` writes.

    Args:
        networks: as for `save_pretrained`.
        repo_id: repository such as `"user/name"`.
        metrics: scores by name, for the card.
        license: the hub's name of a licence, for the card.
        dataset: what the networks were trained on, for the card; None takes what the settings say.
        options: passed on to `huggingface_hub.ModelHubMixin.push_to_hub`, such as `token` or `private`.

    Returns:
        The address of the commit.

    Raises:
        ImportError: huggingface_hub or pillow is missing.
        ValueError: there is no generator.
    """
    published = _Published.of(networks, metrics, license, dataset)
    return str(_wrapper_class()(published).push_to_hub(repo_id, **options))


@dataclass(frozen=True)
class _Published:
    """What is published: networks by name, what their file keeps beside them, and what the card says besides."""

    networks: dict[str, Any]
    meta: dict[str, Any]
    metrics: dict[str, float] = field(default_factory=dict)
    license: str | None = None
    dataset: str | None = None

    @classmethod
    def of(
        cls,
        given: Generator | Mapping[str, Any],
        metrics: Mapping[str, float] | None,
        license: str | None,
        dataset: str | None,
    ) -> _Published:
        if isinstance(given, Generator):
            return cls({"G_ema": given}, {}, dict(metrics or {}), license, dataset)
        meta = dict(given.get("meta") or {})
        recognizer = recognizer_of(given)
        networks = {"G_ema": given[generator_name(given)], **({} if recognizer is None else {"Q": recognizer})}
        return cls(networks, meta, dict(metrics or {}), license, dataset or meta.get("data"))

    @property
    def generator(self) -> Generator:
        return cast(Generator, self.networks["G_ema"])

    @property
    def latents(self) -> str:
        return recorded_latents(self.meta)

    @property
    def names(self) -> dict[int, str]:
        return code_names(self.meta)

    def save(self, folder: Path) -> None:
        save_network(folder / WEIGHTS_FILE, **self.networks, meta=self.meta)
        self._save_samples(folder / SAMPLES_FILE)
        generator = self.generator
        sweep = sweep_codes(generator, torch.zeros(generator.num_codes, device=next(generator.parameters()).device))
        save_png(sweep.sheet([code_label(code, self.names) for code in sweep.dims]), folder / TRAVERSAL_FILE)

    @torch.no_grad()
    def _save_samples(self, path: Path) -> None:
        """A grid of pictures of random codes, the same ones each time."""
        draws = torch.Generator().manual_seed(0)
        codes = draw_codes(_SAMPLE_COLUMNS * _SAMPLE_ROWS, self.generator.num_codes, self.latents, draws=draws)
        codes = codes.to(next(self.generator.parameters()).device)
        images = cast(torch.Tensor, self.generator(codes, noise_mode="const"))
        save_png(image_grid(to_uint8(images).cpu(), _SAMPLE_COLUMNS, outline=False), path)

    def card(self) -> str:
        """Text of the model card."""
        generator, config = self.generator, self.generator.config
        lines = [
            f"![Pictures of random codes]({SAMPLES_FILE})",
            "",
            f"A generator with {generator.num_codes} codes, {config.resolution}x{config.resolution} pixels, made with",
            "sc-layers: spatial constriction and perceptual simplicity.",
            *([f"It was trained on {self.dataset}."] if self.dataset else []),
            "",
            "```python",
            "from sc_layers.checkpoints.hub import load_pretrained",
            "from sc_layers.models.latents import draw_codes",
            "",
            'generator = load_pretrained("this repository or folder")',
            f'images = generator(draw_codes(1, {generator.num_codes}, "{self.latents}"))',
            "```",
            "",
            f"![Each row sweeps one code and ends with its mask]({TRAVERSAL_FILE})",
            "",
            "Each row sweeps one code and ends with its mask.",
            "",
            f"Modules: `{config.to_dict()['module_list']}`",
        ]
        if self.metrics:
            rows = [f"| {name} | {value:.4g} |" for name, value in self.metrics.items()]
            lines += ["", "| metric | value |", "|---|---|", *rows]
        return "\n".join(lines) + "\n"


@functools.cache
def _wrapper_class() -> Any:
    """What is published, within the library's mixin; made here so that the library is only needed for this."""
    hub = require("huggingface_hub", "hub")
    base: Any = hub.ModelHubMixin

    class PretrainedGenerator(base, library_name="sc-layers", tags=["image-generation", "sc-layers"]):  # type: ignore[call-arg, misc, valid-type]
        def __init__(self, published: _Published) -> None:
            self.published = published
            self._hub_mixin_config = published.generator.config.to_dict()

        def _save_pretrained(self, save_directory: Path) -> None:
            self.published.save(save_directory)

        def generate_model_card(self) -> Any:
            data = self._hub_mixin_info.model_card_data
            facts = {"license": self.published.license, "datasets": self.published.dataset}
            known = hub.ModelCardData(**{**data.to_dict(), **{name: fact for name, fact in facts.items() if fact}})
            return hub.ModelCard(f"---\n{known.to_yaml()}\n---\n\n{self.published.card()}")

    return PretrainedGenerator
