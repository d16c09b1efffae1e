"""The grid of a sweep: methods x settings x seeds, and the runs that it stands for."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .._optional import require
from ..files import read_file
from ..messages import shown

_KEYS = ("train", "methods", "vary", "seeds", "metrics", "measure")
MOST_RUNS = 10_000
# What the sweep itself gives to every run.
_OWN_OF_TRAIN = ("outdir", "resume", "seed", "device", "gpus", "dry-run", "wandb")
_OWN_OF_MEASURE = ("metrics", "outdir", "json", "plot", "device")
_FROM_TRAIN = ("data", "resolution", "crop")  # measured is on the images that were trained on


@dataclass(frozen=True)
class Run:
    """One training of a sweep.

    Attributes:
        setting: the method and the value of each setting that varies: a row of a table.
        seed: the training's seed.
        train: options of `sc-layers train`, by name.
        measure: options of `sc-layers metrics`, by name.
    """

    setting: Mapping[str, Any]
    seed: int
    train: Mapping[str, Any]
    measure: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What the run's folder is called.

        >>> Run({"method": "+PS", "rects": 4}, 0, {}, {}).name
        '+PS-rects4-seed0'
        """
        method, *settings = self.setting.items()
        parts = [str(method[1]), *(f"{name}{value}" for name, value in settings), f"seed{self.seed}"]
        return re.sub(r"[^\w.+-]", "_", "-".join(parts))


@dataclass(frozen=True)
class Grid:
    """What a sweep trains and measures.

    Attributes:
        metrics: names of what is measured at the end of each run, keys of `metrics.registry.METRICS`.
        train: options of `sc-layers train` that all runs share, by name.
        methods: further options of it, by the name of the method.
        vary: the values that an option takes, by its name; each is combined with each.
        seeds: seeds of each setting.
        measure: options of `sc-layers metrics`, by name; the images are those of the training if not said otherwise.

    Raises:
        ValueError: an option that the sweep gives itself, no metric, method, value or seed, over 10,000 runs, or two
            of one name.
    """

    metrics: Sequence[str]
    train: Mapping[str, Any] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"PS-SC": {}})
    vary: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    measure: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, values in {
            "metrics": self.metrics,
            "methods": self.methods,
            "seeds": self.seeds,
            **self.vary,
        }.items():
            if not values:
                raise ValueError(f"a grid needs at least one value of {what}, got {shown(values)}")
        trained = {*self.train, *self.vary, *(name for options in self.methods.values() for name in options)}
        for command, given, own in (("train", trained, _OWN_OF_TRAIN), ("metrics", self.measure, _OWN_OF_MEASURE)):
            taken = sorted(set(given) & set(own))
            if taken:
                raise ValueError(
                    f"the sweep itself gives --{taken[0]} to `sc-layers {command}`: leave it out of the grid"
                )
        count = math.prod(map(len, (self.seeds, self.methods, *self.vary.values())))
        if count > MOST_RUNS:
            raise ValueError(f"a grid has at most {MOST_RUNS} runs, got {count}")
        twice = [name for name, times in Counter(run.name for run in self.runs()).items() if times > 1]
        if twice:
            raise ValueError(f"a grid's runs need different names, got {min(twice)} twice")

    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that every setting has a result early."""
        return [
            self._run(method, dict(zip(self.vary, values, strict=True)), seed)
            for seed in self.seeds
            for method in self.methods
            for values in itertools.product(*self.vary.values())
        ]

    def _run(self, method: str, values: dict[str, Any], seed: int) -> Run:
        train = {**self.train, **self.methods[method], **values}
        images = {name: train[name] for name in _FROM_TRAIN if name in train}
        measure = {"metrics": ",".join(self.metrics), **images, **self.measure}
        return Run({"method": method, **values}, seed, train, measure)


def arguments(options: Mapping[str, Any]) -> list[str]:
    """Options as a command line has them.

    Args:
        options: values by name without dashes; True stands for a flag.

    >>> arguments({"kimg": 4, "skip-bad": True})
    ['--kimg', '4', '--skip-bad']
    """
    return [
        word
        for name, value in options.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def _seeds(value: Any) -> list[int]:
    """Seeds from a number of them, or a list."""
    found = list(range(value)) if type(value) is int and value <= MOST_RUNS else value
    if not isinstance(found, list) or not all(type(seed) is int and seed >= 0 for seed in found):
        raise ValueError(
            f"seeds must be how many there are, up to {MOST_RUNS}, or a list of whole numbers, got {shown(value)}"
        )
    return found


def _mapping(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key} must name settings with their values, got {shown(value)}")
    return value


def _of_content(content: Any) -> Grid:
    if not isinstance(content, dict):
        raise ValueError(f"a grid has {', '.join(_KEYS)}, got {shown(content)}")
    unknown = sorted(map(str, set(content) - set(_KEYS)))
    if unknown:
        raise ValueError(f"a grid has {', '.join(_KEYS)}, got {shown(', '.join(unknown))}")
    methods = {str(name): _mapping(_mapping(content, "methods"), name) for name in _mapping(content, "methods")}
    vary = _mapping(content, "vary")
    for name, values in {**vary, "metrics": content.get("metrics")}.items():
        if not isinstance(values, list):
            raise ValueError(f"{name} must be a list of values, got {shown(values)}")
    return Grid(
        content["metrics"],
        _mapping(content, "train"),
        methods or {"PS-SC": {}},
        vary,
        _seeds(content.get("seeds", 1)),
        _mapping(content, "measure"),
    )


def read_grid(path: Path) -> Grid:
    """The grid in a YAML file.

    Args:
        path: the file. It has `train` (options of `sc-layers train` for all), `methods` (further ones, by the method's
            name), `vary` (lists of values by option), `seeds` (how many, or a list), `metrics` (names) and `measure`
            (options of `sc-layers metrics`); all but `metrics` may be left out.

    Raises:
        ValueError: the file is no YAML, or no grid; the message names what came.
        FileNotFoundError: there is no such file.
        ImportError: pyyaml is missing.
    """
    yaml = require("yaml", "sweep")
    try:
        return _of_content(yaml.safe_load(bytes(read_file(path))))
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from error
