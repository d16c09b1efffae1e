"""Data with known factors: the rendered sets, and images with labels of any kind."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ...data import ImageFiles, RenderedDataset, open_dataset
from ..score import Floats, Ints
from .attributes import read_attributes
from .factors import Draws, FactorData, LabelledSet, warn

# A column of fractions with more values than this, or of which most occur once, is measured rather than counted.
_MOST_DISCRETE_VALUES = 64


class LabelledImages(LabelledSet):
    """Images with labels, of any kind: a full grid of factors or part of one, several images a combination, attributes.

    Whenever a factor is held at a value, images are drawn among all that have it.

    Attributes:
        factor_names: names of the F factors.
        factor_sizes: number of values of each factor. Values are numbered in increasing order.
        continuous: indices of the factors that were not cut into bins and look measured: fractions, of which there are
            more than 64 or which hardly ever repeat.

    Args:
        data: images, as `images_at(indices)` gives them.
        values: labels [N, F], numbers.
        factor_names: F names; None or none calls them "factor 0" and so on.
        bins: cut the continuous factors into so many bins with equally many images each; None leaves them.
        name: what messages call the set.

    Raises:
        ValueError: labels that do not fit the images, that are not finite, or fewer than 2 bins.
    """

    def __init__(
        self,
        data: Any,
        values: npt.ArrayLike,
        factor_names: Sequence[str] | None = None,
        bins: int | None = None,
        name: str = "data",
    ) -> None:
        columns = np.asarray(values)
        if columns.ndim != 2 or len(columns) != len(data) or not columns.size:
            raise ValueError(f"{name}: factors must be [N, F] for {len(data)} images, got {columns.shape}")
        if bins is not None and bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        self.factor_names = tuple(factor_names or (f"factor {index}" for index in range(columns.shape[1])))
        if len(self.factor_names) != columns.shape[1]:
            raise ValueError(f"{name}: {len(self.factor_names)} names for {columns.shape[1]} factors")
        self._refuse_gaps(columns, name)
        measured = [index for index, column in enumerate(columns.T) if _is_continuous(column)]
        numbered = [
            _bin_numbers(column, bins) if bins is not None and index in measured else _value_numbers(column)
            for index, column in enumerate(columns.T)
        ]
        self.name, self._data = name, data
        self.continuous = () if bins is not None else tuple(measured)
        self.factors: Ints = np.stack(numbered, axis=1)
        self.factor_sizes = tuple(int(column.max()) + 1 for column in self.factors.T)
        self._rows_by_value: dict[int, list[Ints]] = {}
        self._held: dict[int, Ints] = {}

    def _refuse_gaps(self, columns: npt.NDArray[Any], name: str) -> None:
        for label, column in zip(self.factor_names, columns.T, strict=True):
            if not np.issubdtype(column.dtype, np.number) and column.dtype != bool:
                raise ValueError(f"{name}: {label} must be numbers, got {column.dtype}")
            broken = int((~np.isfinite(column)).sum())
            if broken:
                raise ValueError(f"{name}: {label} is missing (NaN or infinite) for {broken} of {len(column)} images")

    def __len__(self) -> int:
        return len(self.factors)

    def images(self, keys: npt.ArrayLike, /) -> Tensor:
        images: Tensor = self._data.images_at(keys)
        return images

    def draw(self, num: int, rng: np.random.RandomState) -> Draws:
        return self._draws(rng.randint(len(self), size=num))

    def draw_parts(self, nums: Sequence[int], rng: np.random.RandomState, chunk: int) -> list[Draws]:
        total, order = sum(nums), rng.permutation(len(self))
        if total > len(self):
            nums = [num * len(self) // total for num in nums]
            if len(nums) > 1:
                warn(f"{self.name} has {len(self)} images, {total} were to be drawn: parts of {nums} are taken")
        ends = np.cumsum(nums)
        return [self._draws(part) for part in np.split(order[: ends[-1]], ends[:-1])]

    def draw_group(self, factor: int, num: int, rng: np.random.RandomState) -> Draws:
        shared = self._shared_rows(factor)
        rows = self._rows(factor)[self.factors[shared[rng.randint(len(shared))], factor]]
        return self._draws(rows[rng.randint(len(rows), size=num)])

    def draw_pairs(self, factor: int, num: int, rng: np.random.RandomState) -> tuple[Draws, Draws]:
        shared = self._shared_rows(factor)
        first = shared[rng.randint(len(shared), size=num)]
        rows = self._rows(factor)
        second = [rows[value][rng.randint(len(rows[value]))] for value in self.factors[first, factor]]
        return self._draws(first), self._draws(np.array(second, dtype=np.int64))

    def _draws(self, rows: Ints) -> Draws:
        return Draws(self.factors[rows], rows)

    def _rows(self, factor: int) -> list[Ints]:
        """The rows that have each value of a factor."""
        if factor not in self._rows_by_value:
            column = self.factors[:, factor]
            ends = np.cumsum(np.bincount(column))[:-1]
            self._rows_by_value[factor] = np.split(np.argsort(column, kind="stable"), ends)
        return self._rows_by_value[factor]

    def _shared_rows(self, factor: int) -> Ints:
        """The rows whose value of a factor another row has too: a group of one image would not vary at all."""
        if factor not in self._held:
            column = self.factors[:, factor]
            self._held[factor] = np.flatnonzero(np.bincount(column)[column] > 1)
            self._tell_singles(factor, len(self) - len(self._held[factor]))
        return self._held[factor]

    def _tell_singles(self, factor: int, singles: int) -> None:
        label = self.factor_names[factor]
        if singles == len(self):
            raise ValueError(
                f"{self.name}: {label} can't be held fixed: each of its {self.factor_sizes[factor]} values has 1 "
                "picture, and at least 2 are needed"
            )
        if singles:
            warn(f"{self.name}: {singles} values of {label} have 1 picture each and are never held fixed")


def _is_continuous(column: npt.NDArray[Any]) -> bool:
    """Whether a column of labels looks measured rather than counted."""
    if not np.issubdtype(column.dtype, np.floating) or bool((column == np.round(column)).all()):
        return False
    num_values = len(np.unique(column))
    return num_values > _MOST_DISCRETE_VALUES or num_values > len(column) / 2


def _value_numbers(column: npt.NDArray[Any]) -> Ints:
    return np.asarray(np.unique(column, return_inverse=True)[1], dtype=np.int64)


def _bin_numbers(column: Floats, bins: int) -> Ints:
    """Numbers of bins with equally many images each, as far as equal values allow."""
    edges = np.quantile(column, np.linspace(0, 1, bins + 1)[1:-1])
    return _value_numbers(np.searchsorted(edges, column, side="right"))


def open_factor_data(
    spec: str | os.PathLike[str],
    resolution: int | None = None,
    bins: int | None = None,
    crop: str | None = None,
    attributes: str | os.PathLike[str] | None = None,
) -> FactorData:
    """Open a data set with known factors.

    Args:
        spec: any data set of `open_dataset` that is rendered or whose images have factors or labels: "shapes3d",
            "dsprites", "clevr"; `.npz` and `.h5` files as dSprites, 3D Shapes and MPI3D are published; the folders of
            Cars3D and SmallNORB; a folder or zip with a `dataset.json`, of whose labels every number is a factor.
        resolution: height and width; None takes the default of `open_dataset`.
        bins: cut continuous factors into so many bins with equally many images each.
        crop: see `open_dataset`.
        attributes: table of attributes of images in a folder or zip, see `read_attributes`, in place of their labels.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a data set without factors or labels, or ones that do not fit.
    """
    data, name = open_dataset(spec, resolution, crop), os.fspath(spec)
    if attributes is not None:
        if not isinstance(data, ImageFiles):
            raise ValueError(f"{name!r} has no files that a table of attributes could name")
        values, names = read_attributes(attributes, [data.picture_name(index) for index in range(len(data))])
        return LabelledImages(data, values, names, bins, name)
    if isinstance(data, RenderedDataset):
        return data
    known = data.labels if data.factors is None else data.factors
    if known is None:
        raise ValueError(
            f"the factors of {name!r} are not known; expected a rendered set (shapes3d, dsprites, clevr), a .npz or "
            ".h5 file with images and factors, images with labels (dataset.json), or a table (--attributes)"
        )
    return LabelledImages(data, known.reshape(len(data), -1), data.factor_names, bins, name)
