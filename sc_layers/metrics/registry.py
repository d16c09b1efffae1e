"""Metrics by name: what the command line and model selection run on the networks of a checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..attach import AttachedGenerator, AttachedSampler
from ..checkpoints.networks import NetworkRecord
from .disentanglement.factor_files import open_factor_data
from .disentanglement.factors import Score
from .disentanglement.information import mig, modularity
from .disentanglement.intervention import beta_vae, factor_vae
from .disentanglement.predictive import dci, sap
from .disentanglement.unsupervised import irs
from .distances import FeatureDistance, make_distance
from .generative import fid, kid, make_features, ppl
from .traversal_length import TPL_PRESETS, TraversalLength, traversal_perceptual_length

SUPERVISED: dict[str, Callable[..., Score]] = {
    "factor_vae": factor_vae,
    "beta_vae": beta_vae,
    "dci": dci,
    "mig": mig,
    "sap": sap,
    "modularity": modularity,
    "irs": irs,
}
AGAINST_DATA: dict[str, Callable[..., Score]] = {"fid": fid, "kid": kid}
FUNCTIONS: dict[str, Callable[..., Score]] = {"ppl": ppl, **AGAINST_DATA, **SUPERVISED}
TPL_NAMES = {(name if name.startswith("tpl_") else f"tpl_{name}"): name for name in TPL_PRESETS}
METRICS = (*TPL_NAMES, *FUNCTIONS)

# Arguments that count samples, and which `effort` scales.
_COUNTS = ("num_train", "num_eval", "num_test", "num_samples", "num_variance", "num_fakes", "subset_size")
_LEAST = 10  # samples, however small the effort


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError for a metric that does not exist, or for no metric."""
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        what = f"unknown metric {unknown[0]!r}" if unknown else "no metric named"
        raise ValueError(f"{what}; known ones: {', '.join(METRICS)}")


def needs_data(names: Sequence[str]) -> bool:
    """Whether one of these metrics looks at real images."""
    return any(name in SUPERVISED or name in AGAINST_DATA for name in names)


@dataclass(frozen=True)
class Networks:
    """The networks of a checkpoint that metrics use.

    Attributes:
        generator: the averaged one where there is one.
        sampler: the same as a function of everything that is drawn for an image; differs from `generator` for one of
            another program, which has a z besides its codes.
        recognizer: the averaged one where there is one; None if the checkpoint has none.
        latents: how the codes were drawn in training, "normal" or "uniform".
    """

    generator: nn.Module
    sampler: nn.Module
    recognizer: nn.Module | None
    latents: str

    @classmethod
    def of(cls, loaded: Mapping[str, Any], device: torch.device | str = "cpu") -> Networks:
        """Pick them from what `load_network` or `open_networks` returned.

        Raises:
            ValueError: there is no generator that can run.
        """
        generator = loaded.get("G_ema", loaded.get("G"))
        if generator is None:
            raise ValueError("the file holds no generator")
        if isinstance(generator, NetworkRecord):
            raise ValueError("the file holds a generator of another program; open it by open_networks")
        generator = generator.to(device)
        sampler = AttachedSampler(generator) if isinstance(generator, AttachedGenerator) else generator
        recognizer = loaded.get("Q_ema", loaded.get("Q"))
        latents = loaded.get("meta", {}).get("training", {}).get("latents", "normal")
        return cls(generator, sampler, None if recognizer is None else recognizer.to(device), latents)

    @property
    def resolution(self) -> int:
        return int(self.generator.img_resolution)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Measures:
    """Everything that metrics need besides the networks, made once for many checkpoints.

    Attributes:
        data: data set, see `open_factor_data`; None where no metric looks at data.
        distance: of TPL and PPL; None where neither is measured.
        features: of FID and KID; None where neither is measured.
        seed: of every metric.
        batch_size: images a pass.
        effort: factor on the number of samples of every metric but TPL; 1 is each metric's default.
        progress: show progress bars, of those metrics that generate images.
    """

    data: Any = None
    distance: FeatureDistance | None = None
    features: nn.Module | None = None
    seed: int = 0
    batch_size: int = 64
    effort: float = 1.0
    progress: bool = False


def prepare(
    names: Sequence[str],
    data: str | Path | None = None,
    resolution: int | None = None,
    distance: str = "lpips",
    weights: str | Path | None = None,
    features: str = "inception",
    feature_weights: str | Path | None = None,
    **options: Any,
) -> Measures:
    """Open the data and load the feature networks that the metrics `names` need.

    Raises:
        ValueError: an unknown metric; data needed and not given, or without known factors where those are needed;
            weights of a network that none of the metrics looks through; an effort that is not positive.
        FileNotFoundError: no such data, or weights neither here nor to be downloaded.
    """
    check_names(names)
    effort = options.get("effort", 1.0)
    if not effort > 0:
        raise ValueError(f"effort must be positive, got {effort}")
    measures_distance = any(name in TPL_NAMES or name == "ppl" for name in names)
    measures_features = any(name in AGAINST_DATA for name in names)
    for used, file, users in (
        (measures_distance, weights, "weights are those of the distance of TPL and PPL"),
        (measures_features, feature_weights, "feature weights are those of FID and KID"),
    ):
        if file is not None and not used:
            raise ValueError(f"the {users}, and none of them is measured; got {str(file)!r}")
    if needs_data(names) and data is None:
        wanting = [name for name in names if needs_data([name])]
        raise ValueError(f"a data set is needed (--data) for {', '.join(wanting)}")
    return Measures(
        data=_open_data(names, data, resolution) if needs_data(names) and data is not None else None,
        distance=make_distance(distance, weights) if measures_distance else None,
        features=make_features(features, feature_weights) if measures_features else None,
        **options,
    )


def _open_data(names: Sequence[str], spec: str | Path, resolution: int | None) -> Any:
    from ..data import open_dataset

    has_own_size = Path(spec).suffix.lower() in (".npz", ".h5", ".hdf5")
    if has_own_size or any(name in SUPERVISED for name in names):
        return open_factor_data(spec, None if has_own_size else resolution)
    return open_dataset(spec, resolution)


def measure_tpl(name: str, networks: Networks, measures: Measures, **settings: Any) -> TraversalLength:
    """TPL by the metric's name, such as "tpl_small_0.3" or "tpl_celeba"."""
    if measures.distance is None:
        raise ValueError("the distance of TPL was not prepared")
    return traversal_perceptual_length(
        networks.generator,
        preset=TPL_NAMES[name],
        distance=measures.distance,
        seed=measures.seed,
        batch_size=measures.batch_size,
        progress=measures.progress,
        **settings,
    )


def measure(name: str, networks: Networks, measures: Measures) -> Score:
    """The value of one metric.

    Raises:
        ValueError: an unknown metric, or a supervised one without a recogniser.
    """
    check_names([name])
    if name in TPL_NAMES:
        result = measure_tpl(name, networks, measures)
        return Score(name, result.total, result.to_dict())
    function = FUNCTIONS[name]
    options = _counts(function, measures.effort)
    options |= {"seed": measures.seed, "batch_size": measures.batch_size}
    if name == "ppl" or name in AGAINST_DATA:
        options |= {"latents": networks.latents, "progress": measures.progress}
    if name == "ppl":
        return function(networks.sampler, distance=measures.distance, **options)
    if name in AGAINST_DATA:
        options["features"] = measures.features
        if measures.effort != 1:
            options["num_reals"] = min(len(measures.data), max(_LEAST, round(len(measures.data) * measures.effort)))
        return function(networks.sampler, measures.data, **options)
    if networks.recognizer is None:
        raise ValueError(f"{name} needs a recogniser, and the checkpoint holds none (Q or Q_ema)")
    return function(networks.recognizer, measures.data, **options)


def _counts(function: Callable[..., Score], effort: float) -> dict[str, Any]:
    """The function's own numbers of samples, scaled."""
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items() if name in _COUNTS}
    if effort == 1:
        return {}
    return {name: max(_LEAST, round(value * effort)) for name, value in defaults.items() if isinstance(value, int)}
