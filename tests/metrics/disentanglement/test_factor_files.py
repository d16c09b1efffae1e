"""Rendered data sets and published files as data with known factors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sc_layers.metrics.disentanglement.factor_files import FactorFile, open_factor_data
from sc_layers.metrics.disentanglement.information import mig
from sc_layers.metrics.disentanglement.intervention import factor_vae

SIZES = (3, 4, 5)


def grid_arrays(channels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Images whose pixels spell out the factors, and the factors, in shuffled order."""
    factors = np.stack(np.unravel_index(np.random.RandomState(0).permutation(60), SIZES), axis=1)
    images = np.zeros((60, 2, 2), np.uint8)
    images[:, 0, 0], images[:, 0, 1], images[:, 1, 0] = (factors * 50).T
    return (images if channels is None else np.repeat(images[..., None], channels, axis=3)), factors


def corners(images: torch.Tensor) -> torch.Tensor:
    return images[:, 0].flatten(1)[:, :3]


def test_npz_files_as_dsprites_is_published(tmp_path: Path) -> None:
    images, factors = grid_arrays()
    np.savez(tmp_path / "sprites.npz", imgs=images, latents_classes=factors, latents_values=factors / 10)
    data = open_factor_data(tmp_path / "sprites.npz")
    assert tuple(data.factor_sizes) == SIZES
    assert data.images(np.array([[2, 3, 4], [0, 1, 2]]))[:, 0].tolist() == [[[100, 150], [200, 0]], [[0, 50], [100, 0]]]
    assert factor_vae(corners, data, num_train=100, num_eval=100, num_variance=500).score == 1


def test_h5_files_as_3d_shapes_is_published(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    images, factors = grid_arrays(channels=3)
    with h5py.File(tmp_path / "shapes.h5", "w") as file:
        file["images"] = images
        file["labels"] = factors * 0.25 - 1  # values, not indices
    data = open_factor_data(tmp_path / "shapes.h5")
    assert tuple(data.factor_sizes) == SIZES
    shown = data.images(np.array([[2, 3, 4], [2, 3, 4], [0, 1, 2]]))
    assert shown.shape == (3, 3, 2, 2)
    assert shown[:, 2, 1, 0].tolist() == [200, 200, 100]
    assert mig(corners, data, num_samples=2000).score > 0.9


def test_black_and_white_images_of_zeros_and_ones_are_stretched() -> None:
    images, factors = grid_arrays()
    data = FactorFile((images > 60).astype(np.uint8), factors)
    assert set(data.images(factors).unique().tolist()) == {0, 255}


def test_an_incomplete_grid_serves_metrics_that_hold_nothing_fixed() -> None:
    images, factors = grid_arrays()
    data = FactorFile(images[:50], factors[:50], "part.npz")
    assert not data.complete
    assert mig(corners, data, num_samples=500).score > 0.8
    with pytest.raises(ValueError, match=r"part\.npz has no image of the factors \[.*factor_vae"):
        factor_vae(corners, data, num_train=100, num_eval=100, num_variance=100)


@pytest.mark.parametrize(("name", "num_factors"), [("shapes3d", 6), ("dsprites", 5)])
def test_rendered_data_sets_are_opened_by_name(name: str, num_factors: int) -> None:
    data = open_factor_data(name, 32)
    assert len(data.factor_sizes) == num_factors
    assert data.images(np.zeros((2, num_factors), int)).shape[2:] == (32, 32)


def test_errors_name_the_file_and_what_was_expected(tmp_path: Path) -> None:
    np.savez(tmp_path / "odd.npz", pictures=np.zeros(3))
    with pytest.raises(ValueError, match=r"odd\.npz has no array 'imgs' or 'images'; it has pictures"):
        open_factor_data(tmp_path / "odd.npz")
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        open_factor_data(tmp_path / "none.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK broken")
    with pytest.raises(ValueError, match=r"broken\.npz cannot be read"):
        open_factor_data(tmp_path / "broken.npz")
    with pytest.raises(ValueError, match="resolution of its own"):
        open_factor_data(tmp_path / "odd.npz", 32)


def test_a_broken_h5_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    (tmp_path / "broken.h5").write_bytes(b"not h5")
    with pytest.raises(ValueError, match=r"broken\.h5 cannot be read"):
        open_factor_data(tmp_path / "broken.h5")


def test_images_without_known_factors_are_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="are not known"):
        open_factor_data(tmp_path)


@pytest.mark.parametrize(
    ("images", "factors"),
    [
        (np.zeros((4, 2, 2), np.uint8), np.zeros((3, 2))),
        (np.zeros((4, 2, 2), np.float32), np.zeros((4, 2))),
        (np.zeros((4, 2), np.uint8), np.zeros((4, 2))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(images: np.ndarray, factors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be"):
        FactorFile(images, factors)
