"""Unsupervised model selection by TPL over the checkpoints of many runs (paper, Sec. 4.1)."""

from __future__ import annotations

import dataclasses
import functools
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ..checkpoints.opening import open_networks
from . import registry
from .measured import MeasuredStore, find_checkpoints
from .ranking import Candidate, CorrelationTable, correlation_table, rank_candidates
from .traversal_length import TPL_PRESETS


@dataclass(frozen=True)
class SelectionSettings:
    """Which checkpoints are compared, and by what.

    Attributes:
        metric: TPL preset, such as "tpl_small_0.3" or "tpl_celeba".
        min_active: leave out checkpoints with fewer active codes.
        top: keep so many; None keeps all.
        against: further metrics to measure, see `sc_layers.metrics.registry.METRICS`.
        all_snapshots: take all snapshots of the run folders, instead of the newest of each.
        code: checkout of the program that wrote the checkpoints, if it is another one; see `open_networks`.
        label: class of conditional generators.

    Raises:
        ValueError: an unknown metric, or a number out of range.
    """

    metric: str = "tpl_small_0.3"
    min_active: int = 0
    top: int | None = None
    against: tuple[str, ...] = ()
    all_snapshots: bool = False
    code: str | Path | None = None
    label: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "against", tuple(dict.fromkeys(self.against)))
        if self.metric not in TPL_PRESETS:
            raise ValueError(f"models are ranked by one of {', '.join(TPL_PRESETS)}, got {self.metric!r}")
        registry.check_names([self.metric, *self.against])
        rank_candidates([], self.min_active, self.top)  # refuses wrong numbers before the work


SELECTION_SETTINGS = SelectionSettings()


@dataclass(frozen=True)
class Failure:
    """A checkpoint that could not be measured, and why."""

    name: str
    error: str


def select_models(
    paths: Sequence[str | os.PathLike[str]],
    settings: SelectionSettings = SELECTION_SETTINGS,
    measuring: registry.MeasureSettings = registry.MEASURE_SETTINGS,
    *,
    device: torch.device | str | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Selection:
    """Rank the checkpoints of many runs by TPL, without labels.

    Results are kept in `select.jsonl` beside the checkpoints: what was measured with the same settings is not measured
    again, so a run that was cut short goes on where it stopped. Under torchrun the checkpoints are shared out among the
    processes, each on its own GPU if there are GPUs; all processes return the same.

    Args:
        paths: network files, and run folders of which the newest snapshot is taken.
        settings: which checkpoints are compared, and by what.
        measuring: how the metrics are measured: data, distance, feature network, seed, effort.
        device: where to compute; None takes CUDA where it is.
        log: called with a line of text about each checkpoint, and about what was left out.

    Returns:
        The ranking, all candidates, and the checkpoints that could not be measured.

    Raises:
        ValueError: data that is missing, or weights that nothing uses.
        FileNotFoundError: no checkpoints, no data, or no weights.
    """
    found = find_checkpoints(paths, settings.all_snapshots)
    for note in found.notes:
        log(note)
    load = functools.partial(open_networks, code=settings.code, label=settings.label, seed=measuring.seed)
    if measuring.resolution is None and registry.needs_data(settings.against):
        measuring = dataclasses.replace(measuring, resolution=_first_resolution(found.checkpoints, load))
    measures = registry.prepare([settings.metric, *settings.against], measuring)
    store = MeasuredStore(_deciding(settings, measuring))
    with _Share(device) as share:
        pending = [path for path in found.checkpoints if not _is_measured(store.load(path))]
        for path in pending[share.rank :: share.size]:
            store.save(path, _measure_checkpoint(path, load, settings, measures, share.device, log))
    return _selection(found.checkpoints, store, settings)


def _deciding(settings: SelectionSettings, measuring: registry.MeasureSettings) -> dict[str, Any]:
    """The settings that decide what is measured of a checkpoint."""
    classes = {} if settings.label is None else {"class": settings.label}
    against = {"against": list(settings.against)} if settings.against else {}
    return {"metric": settings.metric, **classes, **against, **measuring.deciding([settings.metric, *settings.against])}


def _is_measured(entry: Mapping[str, Any] | None) -> bool:
    return entry is not None and "error" not in entry


_Load = Callable[[Path], Mapping[str, Any]]


def _first_resolution(checkpoints: Sequence[Path], load: _Load) -> int | None:
    """Resolution of the first checkpoint that can be read."""
    for path in checkpoints:
        try:
            return registry.Networks.of(load(path)).resolution
        except Exception:  # reported when it is its turn
            continue
    return None


def _measure_checkpoint(
    path: Path,
    load: _Load,
    settings: SelectionSettings,
    measures: registry.Measures,
    device: torch.device,
    log: Callable[[str], None],
) -> dict[str, Any]:
    try:
        networks = registry.Networks.of(load(path), device, measures.settings.latents)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the table shows the number of active codes
            tpl = registry.measure_tpl(settings.metric, networks, measures)
            scores = {name: registry.measure(name, networks, measures).score for name in settings.against}
    except Exception as error:  # whatever is wrong with one checkpoint, the others are measured
        message = " ".join(str(error).removeprefix(f"{path}: ").split()) or type(error).__name__
        log(f"{path}: skipped: {message}")
        return {"error": message}
    log(f"{path}: TPL {tpl.total:.4g}, {tpl.num_active} active")
    return {
        "tpl": tpl.total,
        "interval": list(tpl.interval),
        "num_active": tpl.num_active,
        "per_dim": tpl.per_dim.tolist(),
        "scores": scores,
    }


class _Share:
    """This process's part of the work under torchrun, and a meeting point when all parts are done."""

    def __init__(self, device: torch.device | str | None) -> None:
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if device is None:
            device = f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)

    def __enter__(self) -> _Share:
        self.own_group = self.size > 1 and not torch.distributed.is_initialized()
        if self.own_group:
            # The slowest process may take days longer than the fastest.
            torch.distributed.init_process_group("gloo", timeout=timedelta(days=30))
        if self.size > 1:
            torch.distributed.barrier()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if self.size > 1 and kind is None:
            torch.distributed.barrier()
        if self.own_group:
            torch.distributed.destroy_process_group()


@dataclass(frozen=True)
class Selection:
    """Result of `select_models`.

    Attributes:
        ranked: the checkpoints that passed the filter, best first.
        candidates: all that were measured.
        failures: those that could not be.
        against: the further metrics that were measured.
        min_active: the filter.
    """

    ranked: list[Candidate]
    candidates: list[Candidate]
    failures: list[Failure]
    against: tuple[str, ...]
    min_active: int

    def correlations(self) -> CorrelationTable | None:
        """TPL against the other metrics, as in Table 1; None if there are none, or fewer than 2 candidates.

        A metric of which less is better enters with its sign turned, as TPL does.
        """
        if not self.against or len(self.candidates) < 2:
            return None
        signs = {name: 1 if registry.METRICS[name].higher_is_better else -1 for name in self.against}
        candidates = [
            dataclasses.replace(c, scores={name: signs[name] * c.scores[name] for name in self.against})
            for c in self.candidates
        ]
        return correlation_table(candidates, self.against, (0, self.min_active) if self.min_active else (0,))

    def table(self) -> str:
        """The ranking, as text."""
        width = max([10, *(len(candidate.name) for candidate in self.ranked)])
        header = f"rank {'checkpoint':<{width}} {'TPL':>9} {'95% interval':>21} active"
        lines = [header + "".join(f"{name:>12}" for name in self.against)]
        for place, candidate in enumerate(self.ranked, 1):
            low, high = candidate.interval or (candidate.tpl, candidate.tpl)
            scores = "".join(f"{candidate.scores[name]:>12.4f}" for name in self.against)
            interval = f"{low:.4g} to {high:.4g}"
            line = f"{place:4d} {candidate.name:<{width}} {candidate.tpl:9.4g} {interval:>21} {candidate.num_active:6d}"
            lines.append(line + scores)
        return "\n".join(lines)

    __str__ = table

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        correlations = self.correlations()
        return {
            "ranked": [candidate.to_dict() for candidate in self.ranked],
            "failures": [{"name": failure.name, "error": failure.error} for failure in self.failures],
            "correlations": None if correlations is None else correlations.to_dict(),
        }


def _selection(checkpoints: Sequence[Path], store: MeasuredStore, settings: SelectionSettings) -> Selection:
    candidates, failures = [], []
    for path in checkpoints:
        entry = store.load(path)
        if entry is None or "error" in entry:
            failures.append(Failure(str(path), "not measured" if entry is None else entry["error"]))
            continue
        interval = (entry["interval"][0], entry["interval"][1])
        info = {"per_dim": entry["per_dim"]}
        candidates.append(Candidate(str(path), entry["tpl"], entry["num_active"], interval, entry["scores"], info))
    ranked = rank_candidates(candidates, settings.min_active, settings.top)
    return Selection(ranked, candidates, failures, settings.against, settings.min_active)
