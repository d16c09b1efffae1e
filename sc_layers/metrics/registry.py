"""Metrics by name: what the command line and model selection run on the networks of a checkpoint."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..attach import AttachedSampler, SeededGenerator
from ..checkpoints.networks import NetworkRecord
from ..checkpoints.opening import check_normal, generator_name, recognizer_of
from ..models.latents import recorded_latents
from ..ops.building import cache_folder
from .disentanglement.capacity import dci_es
from .disentanglement.infomec import infomec
from .disentanglement.information import mig, modularity
from .disentanglement.intervention import beta_vae, factor_vae
from .disentanglement.labelled import open_factor_data
from .disentanglement.pipe import pipe
from .disentanglement.predictive import dci, sap
from .disentanglement.unsupervised import irs
from .distances import FeatureDistance, make_distance
from .features import FeatureCache, make_features
from .generative import STANDARD_IMAGES, SUBSET_SIZE, fid, kid
from .generators import Sampling
from .path_length import STANDARD_PAIRS, ppl
from .score import Score
from .traversal_length import TPL_PRESETS, TraversalLength, traversal_perceptual_length


@dataclass(frozen=True)
class Metric:
    """What has to be known of a metric to run it and to read its number.

    Attributes:
        function: measures it; for TPL the one function of all presets.
        looks_at: "codes" (the generator alone), "images" (generated and real ones), "reconstructions" (a generator's
            images of a recogniser's codes of real ones) or "factors" (a recogniser's codes of labelled images).
        higher_is_better: direction of the number.
    """

    function: Callable[..., Any]
    looks_at: str
    higher_is_better: bool


_SUPERVISED = (factor_vae, beta_vae, dci, mig, sap, modularity, irs, infomec, dci_es)
METRICS: dict[str, Metric] = {
    **{name: Metric(traversal_perceptual_length, "codes", False) for name in TPL_PRESETS},
    "ppl": Metric(ppl, "codes", False),
    "fid": Metric(fid, "images", False),
    "kid": Metric(kid, "images", False),
    "pipe": Metric(pipe, "reconstructions", True),
    **{function.__name__: Metric(function, "factors", True) for function in _SUPERVISED},
}

# Arguments that count samples, and which `effort` scales.
_COUNTS = ("num_train", "num_eval", "num_test", "num_samples", "num_variance")
_LEAST = 10  # samples, however small the effort


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError if `names` has a metric that does not exist, or none."""
    unknown = [name for name in names if name not in METRICS]
    if unknown or not names:
        what = f"unknown metric {unknown[0]!r}" if unknown else "no metric named"
        raise ValueError(f"{what}; known ones: {', '.join(METRICS)}")


def _any_looks_at(names: Sequence[str], *kinds: str) -> bool:
    return any(METRICS[name].looks_at in kinds for name in names)


def needs_data(names: Sequence[str]) -> bool:
    """Whether one of the metrics `names` looks at real images."""
    return _any_looks_at(names, "images", "reconstructions", "factors")


@dataclass(frozen=True)
class Networks:
    """The networks of a checkpoint that metrics use.

    Attributes:
        generator: the averaged one where there is one.
        sampler: the same as a function of everything that is drawn for an image; differs from `generator` for one of
            another program or of directions, which has a z besides its codes.
        recognizer: the averaged one where there is one; None if the checkpoint has none.
        latents: how codes are drawn, "normal" or "uniform".
    """

    generator: nn.Module
    sampler: nn.Module
    recognizer: nn.Module | None
    latents: str

    @classmethod
    def of(cls, loaded: Mapping[str, Any], device: torch.device | str = "cpu", latents: str | None = None) -> Networks:
        """Pick them from what `load_network` or `open_networks` returned.

        Args:
            loaded: networks by name, and "meta".
            device: where they go.
            latents: distribution of the codes; None takes that which the file records.

        Raises:
            ValueError: there is no generator that can run, or an unknown distribution.
        """
        generator = loaded[generator_name(loaded)]
        if isinstance(generator, NetworkRecord):
            raise ValueError("the file holds a generator of another program; open it by open_networks")
        drawn = recorded_latents(loaded.get("meta", {}), latents)
        check_normal(generator, drawn)
        generator = generator.to(device)
        sampler = AttachedSampler(generator) if isinstance(generator, SeededGenerator) else generator
        recognizer = recognizer_of(loaded)
        return cls(generator, sampler, None if recognizer is None else recognizer.to(device), drawn)

    @property
    def resolution(self) -> int:
        """Height and width of the generator's images."""
        return int(self.generator.img_resolution)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MeasureSettings:
    """How metrics are measured, whatever they are measured of.

    Attributes:
        data: data set of the metrics that look at real images, see `open_factor_data`.
        resolution: height and width of the images in pixels; None takes the data set's default.
        crop: "celeba" for its aligned images of 178x218 pixels.
        attributes: table of attributes of the images, in place of their labels.
        bins: cut continuous factors of the data set into so many bins.
        distance: name of the distance of TPL and PPL.
        weights: file of its weights.
        features: name of the feature network of FID and KID.
        feature_weights: file of its weights.
        num_images: generated images of FID and KID, with as many real ones where there are so many, and pairs of PPL;
            None is the standard: 50,000, and all real images.
        latents: distribution of the codes; None takes that which each file records.
        effort: factor on the number of samples of PIPE and of the metrics that look at factors.
        seed: integer that fixes every random draw.
        batch_size: images a pass.
        progress: show progress bars, of those metrics that generate images.
        cache: folder for the features of real images.

    Raises:
        ValueError: a number out of range.
    """

    data: str | Path | None = None
    resolution: int | None = None
    crop: str | None = None
    attributes: str | Path | None = None
    bins: int | None = None
    distance: str = "lpips"
    weights: str | Path | None = None
    features: str = "inception"
    feature_weights: str | Path | None = None
    num_images: int | None = 2_000
    latents: str | None = None
    effort: float = 1.0
    seed: int = 0
    batch_size: int = 64
    progress: bool = False
    cache: Path = field(default_factory=lambda: cache_folder() / "features")

    def __post_init__(self) -> None:
        if not self.effort > 0:
            raise ValueError(f"effort must be positive, got {self.effort}")
        if self.num_images is not None and self.num_images < 2:
            raise ValueError(f"num_images must be at least 2, got {self.num_images}")

    def deciding(self, names: Sequence[str]) -> dict[str, Any]:
        """The settings that decide the numbers of the metrics `names`, ready for JSON."""
        used = ["distance", "weights", "latents", "seed"]
        used += ["data", "resolution", "crop"] if needs_data(names) else []
        used += ["attributes", "bins"] if _any_looks_at(names, "factors") else []
        used += ["effort"] if _any_looks_at(names, "factors", "reconstructions") else []
        used += ["features", "feature_weights"] if _any_looks_at(names, "images") else []
        used += ["num_images"] if _any_looks_at(names, "images") or "ppl" in names else []
        values = {name: getattr(self, name) for name in used}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


MEASURE_SETTINGS = MeasureSettings()


@dataclass(frozen=True)
class Measures:
    """Everything that metrics need besides the networks, made once for many checkpoints.

    Attributes:
        settings: how is measured.
        data: data set; None where no metric looks at data.
        distance: images, images -> distances [B], by which TPL and PPL measure; None where neither is measured.
        features: images -> features [B, D], which FID and KID compare; None where neither is measured.
    """

    settings: MeasureSettings
    data: Any = None
    distance: FeatureDistance | None = None
    features: nn.Module | None = None

    def sampling(self, networks: Networks) -> Sampling:
        """How the generator of `networks` is run."""
        settings = self.settings
        return Sampling(networks.latents, settings.seed, settings.batch_size, progress=settings.progress)

    def sampling_all(self, networks: Networks) -> Sampling:
        """How the sampler of `networks` is run: what directions move was drawn as its training drew it."""
        view = networks.generator
        latents = view.latents if isinstance(view, SeededGenerator) else networks.latents
        return dataclasses.replace(self.sampling(networks), latents=latents)


def prepare(names: Sequence[str], settings: MeasureSettings = MEASURE_SETTINGS) -> Measures:
    """Open the data and load the feature networks that the metrics `names` need, by `settings`.

    Raises:
        ValueError: an unknown metric; data needed and not given, or without known factors where those are needed;
            weights of a network that none of the metrics looks through.
        FileNotFoundError: no such data, or weights neither here nor to be downloaded.
    """
    check_names(names)
    uses_distance, uses_features = _any_looks_at(names, "codes"), _any_looks_at(names, "images")
    for used, file, users in (
        (uses_distance, settings.weights, "weights are those of the distance of TPL and PPL"),
        (uses_features, settings.feature_weights, "feature weights are those of FID and KID"),
    ):
        if file is not None and not used:
            raise ValueError(f"the {users}, and none of them is measured; got {str(file)!r}")
    if needs_data(names) and settings.data is None:
        wanting = [name for name in names if needs_data([name])]
        raise ValueError(f"a data set is needed (--data) for {', '.join(wanting)}")
    return Measures(
        settings,
        data=_open_data(names, settings.data, settings) if needs_data(names) and settings.data is not None else None,
        distance=make_distance(settings.distance, settings.weights) if uses_distance else None,
        features=make_features(settings.features, settings.feature_weights) if uses_features else None,
    )


def _open_data(names: Sequence[str], spec: str | Path, settings: MeasureSettings) -> Any:
    from ..data import open_dataset

    if _any_looks_at(names, "factors"):
        return open_factor_data(spec, settings.resolution, settings.bins, settings.crop, settings.attributes)
    return open_dataset(spec, settings.resolution, settings.crop)


def measure_tpl(name: str, networks: Networks, measures: Measures) -> TraversalLength:
    """TPL of `networks` by its `name`, such as "tpl_small_0.3", with what `measures` has prepared."""
    if measures.distance is None:
        raise ValueError("the distance of TPL was not prepared")
    sampling = measures.sampling(networks)
    return traversal_perceptual_length(networks.generator, None, name, distance=measures.distance, sampling=sampling)


def tpl_score(name: str, result: TraversalLength) -> Score:
    """The total of the TPL in `result` as the score of `name`, with everything else in its details."""
    return Score(name, result.total, result.to_dict())


def measure(name: str, networks: Networks, measures: Measures) -> Score:
    """The value of one metric.

    Args:
        name: a key of `METRICS`.
        networks: what is measured.
        measures: what `prepare` returned for it.

    Raises:
        ValueError: an unknown metric, or one that needs a recogniser without one.
    """
    check_names([name])
    metric, settings = METRICS[name], measures.settings
    if name in TPL_PRESETS:
        return tpl_score(name, measure_tpl(name, networks, measures))
    if metric.looks_at == "codes":
        pairs = STANDARD_PAIRS if settings.num_images is None else settings.num_images
        sampling = measures.sampling_all(networks)
        return ppl(networks.sampler, num_samples=pairs, distance=measures.distance or "lpips", sampling=sampling)
    if metric.looks_at == "images":
        return _image_score(metric, networks, measures)
    if networks.recognizer is None:
        raise ValueError(f"{name} needs a recogniser, and the checkpoint holds none (Q or Q_ema)")
    looked_at = [networks.recognizer, measures.data]
    if metric.looks_at == "reconstructions":
        looked_at.insert(0, networks.generator)
    options = _counts(metric.function, settings.effort)
    score: Score = metric.function(*looked_at, seed=settings.seed, batch_size=settings.batch_size, **options)
    return score


def _image_score(metric: Metric, networks: Networks, measures: Measures) -> Score:
    settings = measures.settings
    options: dict[str, Any] = {"num_images": settings.num_images, "features": measures.features}
    if metric.function is kid:
        most = min(len(measures.data), STANDARD_IMAGES if settings.num_images is None else settings.num_images)
        options["subset_size"] = min(SUBSET_SIZE, most)
    cache, sampling = FeatureCache(settings.cache), measures.sampling_all(networks)
    score: Score = metric.function(networks.sampler, measures.data, cache=cache, sampling=sampling, **options)
    return score


def _counts(function: Callable[..., Score], effort: float) -> dict[str, Any]:
    """The function's own numbers of samples, scaled."""
    defaults = {name: p.default for name, p in inspect.signature(function).parameters.items() if name in _COUNTS}
    if effort == 1:
        return {}
    return {name: max(_LEAST, round(value * effort)) for name, value in defaults.items() if isinstance(value, int)}
