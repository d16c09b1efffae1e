"""Rendered data sets, published files and any labelled images as data with known factors."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sc_layers.metrics.disentanglement.infomec import infomec
from sc_layers.metrics.disentanglement.information import mig, modularity
from sc_layers.metrics.disentanglement.intervention import beta_vae, factor_vae
from sc_layers.metrics.disentanglement.labelled import LabelledImages, open_factor_data
from sc_layers.metrics.disentanglement.predictive import dci, sap
from sc_layers.metrics.disentanglement.unsupervised import irs, udr
from tests.metrics.disentanglement.tables import Pictures
from tests.tolerances import SAMPLED

SIZES = (3, 4, 5)


def grid_arrays(channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images whose pixels spell out the factors, and the factors, in shuffled order."""
    factors = np.stack(np.unravel_index(np.random.RandomState(0).permutation(60), SIZES), axis=1)
    images = np.zeros((60, 2, 2), np.uint8)
    images[:, 0, 0], images[:, 0, 1], images[:, 1, 0] = (factors * 50).T
    return (images if channels is None else np.repeat(images[..., None], channels, axis=3)), factors


def rows_of(factors: np.ndarray, wanted: list[list[int]]) -> np.ndarray:
    return np.array([np.flatnonzero((factors == row).all(axis=1))[0] for row in wanted])


def labelled(images: np.ndarray, factors: np.ndarray, name: str = "data", **options: Any) -> LabelledImages:
    return LabelledImages(Pictures(images), factors, name=name, **options)


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1)


def corners(images: torch.Tensor) -> torch.Tensor:
    return images[:, 0].flatten(1)[:, :3]


def test_npz_files_as_dsprites_is_published(tmp_path: Path) -> None:
    images, factors = grid_arrays()
    np.savez(tmp_path / "sprites.npz", imgs=images, latents_classes=factors, latents_values=factors / 10)
    data = open_factor_data(tmp_path / "sprites.npz")
    assert tuple(data.factor_sizes) == SIZES
    assert data.images(rows_of(factors, [[2, 3, 4], [0, 1, 2]]))[:, 0].tolist() == [
        [[100, 150], [200, 0]],
        [[0, 50], [100, 0]],
    ]
    assert factor_vae(corners, data, num_train=100, num_eval=100, num_variance=500).score == 1


def test_h5_files_as_3d_shapes_is_published(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    images, factors = grid_arrays(channels=3)
    with h5py.File(tmp_path / "shapes.h5", "w") as file:
        file["images"] = images
        file["labels"] = factors * 0.25 - 1  # values, not indices
    data = open_factor_data(tmp_path / "shapes.h5")
    assert tuple(data.factor_sizes) == SIZES
    shown = data.images(rows_of(factors, [[2, 3, 4], [2, 3, 4], [0, 1, 2]]))
    assert shown.shape == (3, 3, 2, 2)
    assert shown[:, 2, 1, 0].tolist() == [200, 200, 100]
    assert mig(corners, data, num_samples=2000).score > 0.9


def noise_with_attributes(num: int = 2000, num_attributes: int = 3) -> LabelledImages:
    """Pictures that have nothing to do with their labels."""
    rng = np.random.RandomState(0)
    images = rng.randint(0, 256, size=(num, 2, 2)).astype(np.uint8)
    return labelled(images, rng.randint(2, size=(num, num_attributes)) * 2 - 1)


def test_unrelated_attributes_are_informative_by_chance_alone() -> None:
    """Scored from 8 pictures, one a combination of the attributes, informativeness was 1."""
    data = noise_with_attributes()
    assert dci(pixels, data).details["informativeness"] == pytest.approx(0.5, abs=SAMPLED)
    assert factor_vae(pixels, data, num_train=300, num_eval=300).score < 0.6
    assert mig(pixels, data).score < 0.02


def test_every_picture_that_matches_can_be_drawn() -> None:
    data, rng = noise_with_attributes(400), np.random.RandomState(0)
    assert len(set(data.draw(4000, rng).keys.tolist())) == 400
    group = data.draw_group(1, 4000, rng)
    assert len(np.unique(group.factors[:, 1])) == 1
    assert set(group.keys.tolist()) == set(np.flatnonzero(data.factors[:, 1] == group.factors[0, 1]).tolist())
    first, second = data.draw_pairs(2, 4000, rng)
    assert (first.factors[:, 2] == second.factors[:, 2]).all()
    assert len(set(second.keys.tolist())) == 400


def test_no_picture_is_both_fitted_to_and_judged_by() -> None:
    data = noise_with_attributes(400)
    train, test = data.draw_parts([150, 100], np.random.RandomState(0), 64)
    assert len(set(train.keys) | set(test.keys)) == 250
    with pytest.warns(RuntimeWarning, match=r"data has 400 images, 3000 were to be drawn: parts of \[266, 133\]"):
        train, test = data.draw_parts([2000, 1000], np.random.RandomState(0), 64)
    assert len(set(train.keys) | set(test.keys)) == 399


METRICS: list[tuple[Callable[..., Any], dict[str, int]]] = [
    (factor_vae, {"num_train": 200, "num_eval": 100, "num_variance": 1000}),
    (beta_vae, {"num_train": 200, "num_eval": 100}),
    (dci, {"num_train": 300, "num_test": 200}),
    (sap, {"num_train": 300, "num_test": 200}),
    (mig, {"num_samples": 500}),
    (modularity, {"num_train": 300, "num_test": 200}),
    (irs, {"num_samples": 500}),
    (infomec, {"num_samples": 500}),
]


@pytest.mark.parametrize(("metric", "sizes"), METRICS)
def test_an_incomplete_grid_with_several_pictures_a_combination_serves_every_metric(
    metric: Callable[..., Any], sizes: dict[str, int]
) -> None:
    rng = np.random.RandomState(0)
    images, factors = grid_arrays()
    rows = np.concatenate([np.arange(50)] * 12)  # ten combinations have no picture
    varied = images[rows] + rng.randint(0, 10, size=(600, 2, 2)).astype(np.uint8)
    assert metric(corners, labelled(varied, factors[rows]), **sizes).score > (0.1 if metric is sap else 0.6)


def test_forty_attributes_need_no_grid() -> None:
    data = noise_with_attributes(500, 40)
    assert factor_vae(pixels, data, num_train=100, num_eval=100).score < 0.3
    assert len(data.factor_sizes) == 40


def continuous(num: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a smooth factor and of a binary one."""
    rng = np.random.RandomState(0)
    factors = np.stack([rng.rand(num), rng.randint(2, size=num)], axis=1)
    images = np.zeros((num, 2, 2), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = (factors * 255).T
    return images, factors


@pytest.mark.parametrize(("metric", "sizes"), METRICS)
def test_continuous_factors_are_refused_by_name_or_cut_into_bins(
    metric: Callable[..., Any], sizes: dict[str, int]
) -> None:
    images, factors = continuous(600)
    with pytest.raises(ValueError, match=r"continuous: 'age' \(600 values\); cut them into bins \(.*--bins 10\)"):
        metric(corners, labelled(images, factors, factor_names=["age", "smiles"]), **sizes)
    binned = labelled(images, factors, bins=5)
    assert binned.factor_sizes == (5, 2)
    assert np.bincount(binned.factors[:, 0]).tolist() == [120] * 5
    assert 0 <= metric(corners, binned, **sizes).score <= 1


def test_udr_needs_no_factors_that_repeat() -> None:
    images, factors = continuous()
    assert udr([corners, corners], labelled(images, factors), num_samples=200, correlation="spearman").score > 0.3


def test_a_factor_whose_values_have_one_picture_each_can_not_be_held() -> None:
    images, factors = grid_arrays()
    numbered = np.stack([np.arange(60), factors[:, 0]], axis=1)
    data = labelled(images, numbered, "set.npz", factor_names=["identity", "shape"])
    message = r"set\.npz: identity can't be held fixed: each of its 60 values has 1 picture, and at least 2"
    with pytest.raises(ValueError, match=message):
        factor_vae(corners, data, num_train=50, num_eval=10, num_variance=50)


def test_values_with_one_picture_are_never_held_and_counted() -> None:
    images, factors = grid_arrays()
    shapes = np.where(np.arange(60) < 2, 90 + np.arange(60), factors[:, 0])
    data, rng = labelled(images, shapes[:, None]), np.random.RandomState(0)
    with pytest.warns(RuntimeWarning, match="2 values of factor 0 have 1 picture each and are never held fixed"):
        held = {int(data.draw_group(0, 5, rng).factors[0, 0]) for _ in range(100)}
    assert held == {0, 1, 2}


def test_missing_labels_are_refused_by_name() -> None:
    images, factors = grid_arrays()
    broken = factors.astype(float)
    broken[3:5, 1] = np.nan
    with pytest.raises(ValueError, match=r"age is missing .* for 2 of 60 images"):
        labelled(images, broken, factor_names=["shape", "age", "size"])
    with pytest.raises(ValueError, match="factor 0 must be numbers, got <U3"):
        labelled(images, np.full((60, 1), "cat"))


def test_image_files_with_labels_are_data_with_factors(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for index in range(6):
        image.fromarray(np.full((8, 8, 3), 40 * index, np.uint8)).save(tmp_path / f"{index}.png")
    labels = [[f"{index}.png", [index % 2, index // 2]] for index in range(6)]
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": labels}))
    data = open_factor_data(tmp_path)
    assert tuple(data.factor_sizes) == (2, 3)
    assert data.images([3])[0, 0, 0, 0] == 120


@pytest.mark.parametrize(("name", "num_factors"), [("shapes3d", 6), ("dsprites", 5)])
def test_rendered_data_sets_are_opened_by_name(name: str, num_factors: int) -> None:
    data = open_factor_data(name, 32)
    assert len(data.factor_sizes) == num_factors
    assert data.images(np.zeros((2, num_factors), int)).shape[2:] == (32, 32)


def test_images_without_known_factors_are_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="are not known"):
        open_factor_data(tmp_path)


@pytest.mark.parametrize("factors", [np.zeros((59, 2)), np.zeros(60), np.zeros((60, 0))])
def test_labels_that_do_not_fit_the_images_are_refused(factors: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"data: factors must be \[N, F\] for 60 images, got \("):
        labelled(grid_arrays()[0], factors)


@pytest.mark.parametrize(("options", "message"), [({"bins": 1}, "bins must be"), ({"factor_names": ["a"]}, "1 names")])
def test_wrong_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labelled(*grid_arrays(), **options)
