"""Directions in the latent space of a trained generator, found without training: SeFa and GANSpace."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from .messages import shown

METHODS = ("sefa", "ganspace")


@dataclass(frozen=True)
class Directions:
    """K directions in w, whose coordinates are codes: `w = mean + codes @ steps`, and what lies across them.

    Attributes:
        method: what found them, one of `METHODS`.
        steps: [K, W] float32, how far w moves when a code moves by 1, a standard deviation of what was sampled.
        mean: [W] float32, where all codes are 0.
        rows: [R], which rows of w are moved.
        latents: the distribution that z is drawn from, "normal" or "uniform".
    """

    method: str
    steps: Tensor
    mean: Tensor
    rows: Sequence[int]
    latents: str = "normal"

    def coordinates(self, w: Tensor) -> Tensor:
        """The codes [N, K] of w [N, W], by least squares."""
        return (w - self.mean) @ self._inverse

    @cached_property
    def _inverse(self) -> Tensor:
        return torch.linalg.pinv(self.steps)

    def moved(self, ws: Tensor, codes: Tensor) -> Tensor:
        """w that has other codes, and is else as it was.

        Args:
            ws: [1, L, W'], of which the first W entries of the rows named here are moved.
            codes: [N, K].

        Returns:
            [N, L, W'].
        """
        width = self.steps.shape[1]
        change = (codes - self.coordinates(ws[:, self.rows[0], :width])) @ self.steps
        moved = ws.repeat(len(codes), 1, 1)
        moved[:, self.rows, :width] += change[:, None]
        return moved

    def to(self, device: torch.device | str) -> Directions:
        """The same on a `device`; itself where it is there already."""
        if self.steps.device == torch.device(device):
            return self
        return dataclasses.replace(self, steps=self.steps.to(device), mean=self.mean.to(device))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        numbers = {"steps": self.steps.tolist(), "mean": self.mean.tolist(), "rows": list(self.rows)}
        return {"method": self.method, "latents": self.latents, **numbers}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Directions:
        """The directions whose `fields` `to_dict` wrote.

        Raises:
            ValueError: a field is missing, unknown, or not of its type and size.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(fields, Mapping) or set(fields) != names:
            raise ValueError(f"directions are {shown(fields)}, expected a mapping of {', '.join(sorted(names))}")
        steps, mean = (_numbers(fields[name], name) for name in ("steps", "mean"))
        rows = fields["rows"]
        if not isinstance(rows, list) or not rows or not all(type(row) is int and row >= 0 for row in rows):
            raise ValueError(f"rows of directions are {shown(rows)}, expected numbers of rows")
        if steps.ndim != 2 or not 1 <= len(steps) <= steps.shape[1] or mean.shape != steps.shape[1:]:
            raise ValueError(f"directions of shape {tuple(steps.shape)} around a mean of shape {tuple(mean.shape)}")
        for name in ("method", "latents"):
            if not isinstance(fields[name], str):
                raise ValueError(f"{name} of directions is {shown(fields[name])}, expected a text")
        return cls(fields["method"], steps, mean, rows, fields["latents"])


def _numbers(value: Any, name: str) -> Tensor:
    try:
        numbers = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{name} of directions is {shown(value)}, expected numbers") from error
    if not numbers.isfinite().all():
        raise ValueError(f"{name} of directions has entries that are not finite")
    return numbers


def _largest(symmetric: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues [count], falling, and their vectors as rows, the largest entry positive."""
    if not 1 <= count <= len(symmetric):
        raise ValueError(f"count must be from 1 to {len(symmetric)}, the width of what is looked at, got {count}")
    values, vectors = torch.linalg.eigh(symmetric)
    rows = vectors.T.flip(0)[:count]
    signs = rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()
    return values.flip(0)[:count], rows * signs


def sefa(weights: Sequence[Tensor], count: int, normalize: bool = True) -> Tensor:
    """Directions that change styles most: the eigenvectors of A^T A of the largest eigenvalues.

    A is all weights on top of each other. A unit step along n changes the styles, `A w + b`, by `|A n|`, which these
    vectors make as large as it can be, one after the other.

    Args:
        weights: of the affine maps from w to styles, [outputs, W] each.
        count: K, how many directions.
        normalize: make every row of A of length 1 first, as the authors' program does; otherwise as the paper has it.

    Returns:
        [K, W] of length 1, orthogonal, in the weights' dtype.

    Raises:
        ValueError: more directions than entries of w, or none.

    Source: Shen and Zhou, Closed-Form Factorization of Latent Semantics in GANs (2021), Eq. 7, and their program.

    >>> sefa([torch.tensor([[3.0, 0.0], [0.0, 2.0]])], 1, normalize=False)
    tensor([[1., 0.]])
    """
    stacked = torch.cat([weight.detach().double() for weight in weights])
    if normalize:
        stacked = torch.nn.functional.normalize(stacked, dim=1)
    return _largest(stacked.T @ stacked, count)[1].to(weights[0].dtype)


def ganspace(features: Tensor, count: int, latents: Tensor | None = None) -> Tensor:
    """Principal components of features, as steps of one standard deviation in the space of latents.

    With V the components of the largest variances s^2, the coordinates of features y are `x = V^T (y - mean)`. Where
    features are the latents themselves, the steps are `s V`. Otherwise the latents follow from the coordinates by least
    squares: `U = argmin sum |U x - (z - mean z)|^2`, and the steps are `s U`.

    Args:
        features: [N, W], such as w of random z.
        count: K, how many components.
        latents: [N, Z], of which the features were made; None where they are the latents.

    Returns:
        [K, Z], or [K, W] without latents, in the features' dtype, the largest variance first.

    Raises:
        ValueError: fewer samples than two, more components than entries or than variances that are not 0, or none.

    Source: Haerkoenen et al., GANSpace: Discovering Interpretable GAN Controls (2020), Sec. 2.1 and 2.2, Eq. 1.
    """
    if len(features) < 2:
        raise ValueError(f"principal components need at least 2 samples, got {len(features)}")
    centred = features.double() - features.double().mean(0)
    wide = centred.shape[1] > len(centred)
    gram = centred @ centred.T if wide else centred.T @ centred
    values, vectors = _largest(gram, count)
    if values[-1] <= 1e-12 * values[0]:
        raise ValueError(f"the features vary in fewer than {count} directions: take fewer")
    components = torch.nn.functional.normalize(vectors @ centred, dim=1) if wide else vectors
    deviations = (values / (len(centred) - 1)).sqrt()[:, None]
    if latents is None:
        return (components * deviations).to(features.dtype)
    targets = latents.double() - latents.double().mean(0)
    coordinates = centred @ components.T
    return (deviations * torch.linalg.lstsq(coordinates, targets).solution).to(features.dtype)
