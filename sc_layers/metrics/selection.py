"""Unsupervised model selection by TPL, and how its ranking agrees with other metrics (paper, Sec. 4.1 and Table 1)."""

from __future__ import annotations

import functools
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._optional import require
from ..checkpoints.opening import open_networks
from . import registry
from .disentanglement.factors import warn


@dataclass(frozen=True)
class Candidate:
    """A model and what was measured of it.

    Attributes:
        name: what the table calls it, such as the path of its checkpoint.
        tpl: total TPL; less is better.
        num_active: codes at or above the threshold of TPL.
        interval: bootstrap interval of the total, if there is one.
        scores: other metrics by name, of which more is better.
        info: anything else worth keeping.
    """

    name: str
    tpl: float
    num_active: int
    interval: tuple[float, float] | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "name": self.name,
            "tpl": self.tpl,
            "num_active": self.num_active,
            "interval": None if self.interval is None else list(self.interval),
            "scores": dict(self.scores),
            **self.info,
        }


def rank_candidates(candidates: Sequence[Candidate], min_active: int = 0, top: int | None = None) -> list[Candidate]:
    """Candidates with at least `min_active` active codes, the smallest TPL first.

    The filter takes out models that have a short TPL because they encode only some of the factors.

    Args:
        candidates: any number.
        min_active: least number of active codes; the paper's "act > 4" is 5.
        top: keep so many; None keeps all.

    Raises:
        ValueError: a negative `min_active`, or `top` below 1.
    """
    if min_active < 0:
        raise ValueError(f"min_active must not be negative, got {min_active}")
    if top is not None and top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    kept = [candidate for candidate in candidates if candidate.num_active >= min_active]
    return sorted(kept, key=lambda candidate: candidate.tpl)[:top]


def spearman(first: Sequence[float], second: Sequence[float]) -> float:
    """Spearman's rank correlation; 0 with a warning where one side is constant or there are fewer than 2 values."""
    if len(first) != len(second):
        raise ValueError(f"rank correlation needs as many values on both sides, got {len(first)} and {len(second)}")
    if len(set(first)) < 2 or len(set(second)) < 2:
        warn(f"rank correlation of {len(first)} values is given as 0: one side has no two different ones")
        return 0.0
    rank = require("scipy.stats", "metrics").rankdata
    return float(np.corrcoef(rank(first), rank(second))[0, 1])


@dataclass(frozen=True)
class CorrelationTable:
    """Rank correlations of unsupervised and supervised scores, as in Table 1 of the paper.

    Attributes:
        columns: the supervised metrics.
        rows: by method: the number of models and a correlation for each column.
    """

    columns: tuple[str, ...]
    rows: Mapping[str, tuple[int, tuple[float, ...]]]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            name: {"models": num, **dict(zip(self.columns, values, strict=True))}
            for name, (num, values) in self.rows.items()
        }

    def table(self) -> str:
        """As text."""
        width = max(len("method"), *map(len, self.rows)) + 1
        lines = [f"{'method':<{width}}{'models':>7}" + "".join(f"{name:>12}" for name in self.columns)]
        for name, (num, values) in self.rows.items():
            lines.append(f"{name:<{width}}{num:>7}" + "".join(f"{value:>12.2f}" for value in values))
        return "\n".join(lines)

    __str__ = table


def correlation_table(
    candidates: Sequence[Candidate],
    against: Sequence[str],
    min_actives: Sequence[int] = (0,),
    others: Sequence[str] = (),
) -> CorrelationTable:
    """Spearman's rank correlation of TPL with supervised metrics (Table 1). TPL enters with its sign turned.

    Args:
        candidates: models whose `scores` have all metrics that are named.
        against: the supervised metrics, one a column.
        min_actives: one row of TPL each, over the models with at least so many active codes.
        others: further scores, one row each over all models: UDR, or a supervised metric as an upper bound.

    Raises:
        ValueError: a candidate lacks a score.
    """
    for candidate in candidates:
        missing = [name for name in (*against, *others) if name not in candidate.scores]
        if missing:
            raise ValueError(f"{candidate.name} has no score {missing[0]!r}; it has {', '.join(candidate.scores)}")
    rows = {}
    for least in min_actives:
        kept = rank_candidates(candidates, least)
        values = tuple(spearman([-c.tpl for c in kept], [c.scores[name] for c in kept]) for name in against)
        rows[f"TPL (act>{least - 1})" if least else "TPL"] = (len(kept), values)
    for other in others:
        values = tuple(
            spearman([c.scores[other] for c in candidates], [c.scores[name] for c in candidates]) for name in against
        )
        rows[other] = (len(candidates), values)
    return CorrelationTable(tuple(against), rows)


CHECKPOINT_SUFFIXES = (".safetensors", ".pt", ".pkl")
RESULTS_FILE = "select.jsonl"


@dataclass(frozen=True)
class Failure:
    """A checkpoint that could not be measured, and why."""

    name: str
    error: str


def find_checkpoints(
    paths: Sequence[str | os.PathLike[str]], log: Callable[[str], None] = lambda message: None
) -> list[Path]:
    """Network files: those named, and all `network-snapshot-*` in the folders named.

    Args:
        paths: files and run folders. A folder without snapshots, such as that of a run that has just begun, is skipped.
        log: called with a line of text about each folder that is skipped.

    Raises:
        FileNotFoundError: a path that does not exist, or no network file in any of them.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_file():
            found.append(path)
            continue
        if not path.is_dir():
            raise FileNotFoundError(f"no such network file or run folder: {str(path)!r}")
        snapshots = sorted(p for p in path.glob("network-snapshot-*") if p.suffix in CHECKPOINT_SUFFIXES)
        if not snapshots:
            log(f"{path}: skipped: no network-snapshot-* in the folder")
        found += snapshots
    if not found:
        raise FileNotFoundError(f"no network file and no network-snapshot-* in {', '.join(map(str, paths))}")
    return list(dict.fromkeys(found))


class _Results:
    """What was measured of the checkpoints of all folders: one line of JSON each, beside the checkpoints.

    A line carries the settings and the file's size and time, so results of other settings or of a file that has changed
    are not mistaken for these. Processes append whole lines, so they can share a file.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.settings = json.loads(json.dumps(settings))

    def _key(self, path: Path) -> dict[str, Any]:
        status = path.stat()
        return {"file": path.name, "size": status.st_size, "time": status.st_mtime_ns, "settings": self.settings}

    def load(self, path: Path) -> dict[str, Any] | None:
        """The last line about this checkpoint, if there is one."""
        results = path.with_name(RESULTS_FILE)
        if not results.is_file():
            return None
        key, found = self._key(path), None
        for line in results.read_text().splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a line that was cut short when a process was killed
                continue
            if isinstance(entry, dict) and entry.get("key") == key:
                found = entry
        return found

    def save(self, path: Path, entry: Mapping[str, Any]) -> None:
        """Append a line about this checkpoint."""
        results = path.with_name(RESULTS_FILE)
        line = json.dumps({"key": self._key(path), **entry}) + "\n"
        if results.is_file() and not results.read_bytes().endswith(b"\n"):
            line = "\n" + line  # the last line was cut short when a process was killed
        handle = os.open(results, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(handle, line.encode())
        finally:
            os.close(handle)


def select_models(
    paths: Sequence[str | os.PathLike[str]],
    *,
    metric: str = "tpl_small_0.3",
    min_active: int = 0,
    top: int | None = None,
    against: Sequence[str] = (),
    data: str | Path | None = None,
    resolution: int | None = None,
    distance: str = "lpips",
    weights: str | Path | None = None,
    features: str = "inception",
    feature_weights: str | Path | None = None,
    seed: int = 0,
    batch_size: int = 64,
    effort: float = 1.0,
    device: torch.device | str | None = None,
    code: str | Path | None = None,
    label: int | None = None,
    log: Callable[[str], None] = lambda message: None,
) -> Selection:
    """Rank the checkpoints of many runs by TPL, without labels.

    Results are kept in `select.jsonl` beside the checkpoints: what was measured with the same settings is not measured
    again, so a run that was cut short goes on where it stopped. Under torchrun the checkpoints are shared out among the
    processes, each on its own GPU if there are GPUs; all processes return the same.

    Args:
        paths: network files, and run folders of which all snapshots are taken.
        metric: TPL preset, such as "tpl_small_0.3" or "tpl_celeba".
        min_active: leave out checkpoints with fewer active codes.
        top: keep so many; None keeps all.
        against: further metrics to measure, see `sc_layers.metrics.registry.METRICS`.
        data: data set for those that look at real images, see `open_factor_data`.
        resolution: of the data set; None takes that of the first checkpoint.
        distance: of TPL.
        weights: file of the distance's weights.
        features: feature network of FID and KID.
        feature_weights: file of its weights.
        seed: of every metric.
        batch_size: images a pass.
        effort: factor on the number of samples of the metrics in `against`.
        device: where to compute; None takes CUDA where it is.
        code: checkout of the program that wrote the checkpoints, if it is another one; see `open_networks`.
        label: class of conditional generators.
        log: called with a line of text about each checkpoint.

    Returns:
        The ranking, all candidates, and the checkpoints that could not be measured.

    Raises:
        ValueError: an unknown metric, or data that is missing.
        FileNotFoundError: no checkpoints, no data, or no weights.
    """
    names = tuple(dict.fromkeys(against))
    if metric not in registry.TPL_NAMES:
        raise ValueError(f"models are ranked by one of {', '.join(registry.TPL_NAMES)}, got {metric!r}")
    registry.check_names([metric, *names])
    rank_candidates([], min_active, top)  # refuses wrong numbers before the work
    checkpoints = find_checkpoints(paths, log)
    load = functools.partial(open_networks, code=code, label=label, seed=seed)
    if resolution is None and registry.needs_data(names):
        resolution = _first_resolution(checkpoints, load)
    measures = registry.prepare(
        [metric, *names],
        *(data, resolution, distance, weights, features, feature_weights),
        seed=seed,
        batch_size=batch_size,
        effort=effort,
    )
    settings = {
        "metric": metric,
        "distance": distance,
        "weights": _text(weights),
        "seed": seed,
        **({} if label is None else {"class": label}),
        **({"against": list(names), "data": _text(data), "effort": effort} if names else {}),
        **({"features": features, "feature_weights": _text(feature_weights)} if measures.features else {}),
    }
    results = _Results(settings)
    with _Share(device) as share:
        pending = [path for path in checkpoints if not _is_measured(results.load(path))]
        for path in pending[share.rank :: share.size]:
            results.save(path, _measure_checkpoint(path, load, metric, names, measures, share.device, log))
    return _selection(checkpoints, results, names, min_active, top)


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


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
    metric: str,
    names: Sequence[str],
    measures: registry.Measures,
    device: torch.device,
    log: Callable[[str], None],
) -> dict[str, Any]:
    try:
        networks = registry.Networks.of(load(path), device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the table shows the number of active codes
            tpl = registry.measure_tpl(metric, networks, measures)
            scores = {name: registry.measure(name, networks, measures).score for name in names}
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
        """TPL against the other metrics, as in Table 1; None if there are none, or fewer than 2 candidates."""
        if not self.against or len(self.candidates) < 2:
            return None
        filters = (0, self.min_active) if self.min_active else (0,)
        return correlation_table(self.candidates, self.against, filters)

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


def _selection(
    checkpoints: Sequence[Path], results: _Results, names: tuple[str, ...], min_active: int, top: int | None
) -> Selection:
    candidates, failures = [], []
    for path in checkpoints:
        entry = results.load(path)
        if entry is None or "error" in entry:
            failures.append(Failure(str(path), "not measured" if entry is None else entry["error"]))
            continue
        interval = (entry["interval"][0], entry["interval"][1])
        info = {"per_dim": entry["per_dim"]}
        candidates.append(Candidate(str(path), entry["tpl"], entry["num_active"], interval, entry["scores"], info))
    return Selection(rank_candidates(candidates, min_active, top), candidates, failures, names, min_active)
