from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sc_layers.data import Cars3D, open_dataset

scipy_io = pytest.importorskip("scipy.io")

AZIMUTHS, ELEVATIONS = 3, 2


def _write(folder: Path, cars: int, size: int = 8, **other: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Images [car, H, W, 3, azimuth, elevation], written as they are published."""
    shape = (cars, size, size, 3, AZIMUTHS, ELEVATIONS)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for number, image in enumerate(images):
        scipy_io.savemat(folder / f"car_{number:03}_mesh.mat", {"im": image, **other})
    return images


def test_files_of_the_published_layout_are_read(tmp_path: Path) -> None:
    images = _write(tmp_path, 2)
    data = open_dataset(tmp_path, 8)
    assert isinstance(data, Cars3D)
    assert (len(data), data.factor_names) == (2 * AZIMUTHS * ELEVATIONS, ("elevation", "azimuth", "object_type"))
    for index, (elevation, azimuth, car) in enumerate(data.factors):
        expected = images[car, :, :, :, azimuth, elevation].transpose(2, 0, 1)
        np.testing.assert_array_equal(data.images_at([index])[0], expected)


def test_images_are_resampled_to_64_pixels(tmp_path: Path) -> None:
    _write(tmp_path, 1, size=128)
    assert open_dataset(tmp_path).images_at([0]).shape == (1, 3, 64, 64)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    (tmp_path / "car_001_mesh.mat").write_bytes(b"MATLAB 5.0 damaged" * 20)
    with pytest.raises(ValueError, match=r"car_001_mesh\.mat cannot be read as a file of Cars3D"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"x": np.zeros(3)}, r"holds nothing of shape \(\) under 'im'"),
        ({"im": np.zeros((4, 4, 3, 2, 2))}, r"holds double of shape \(4, 4, 3, 2, 2\) under 'im', expected uint8"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, content: dict[str, Any], message: str) -> None:
    scipy_io.savemat(tmp_path / "car.mat", content)
    with pytest.raises(ValueError, match=message):
        open_dataset(tmp_path)


def test_cars_seen_from_other_sides_are_refused(tmp_path: Path) -> None:
    _write(tmp_path, 1)
    scipy_io.savemat(tmp_path / "other.mat", {"im": np.zeros((8, 8, 3, 5, 2), np.uint8)})
    with pytest.raises(ValueError, match=r"other\.mat has \(5, 2\) views, expected \(3, 2\)"):
        open_dataset(tmp_path)
