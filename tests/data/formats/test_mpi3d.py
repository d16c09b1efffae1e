from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sc_layers.data import open_dataset
from sc_layers.data.formats.mpi3d import MPI3D_FACTORS, mpi3d_factors


@pytest.mark.parametrize(("count", "colours"), [(1_036_800, 6), (460_800, 4)])
def test_the_last_factor_runs_fastest(count: int, colours: int) -> None:
    factors = mpi3d_factors(count)
    assert factors is not None
    assert factors.max(0).tolist() == [colours - 1, colours - 1, 1, 2, 2, 39, 39]
    assert factors[1].tolist() == [0, 0, 0, 0, 0, 0, 1]
    assert factors[40 * 40].tolist() == [0, 0, 0, 0, 1, 0, 0]


def test_another_number_of_images_has_no_known_factors() -> None:
    assert mpi3d_factors(1000) is None


def test_a_file_of_the_published_layout_is_read(tmp_path: Path) -> None:
    images = np.zeros((460_800, 2, 2, 3), np.uint8)
    images[40, 0, 0] = [10, 20, 30]
    np.savez(tmp_path / "mpi3d_toy.npz", images=images)
    data = open_dataset(tmp_path / "mpi3d_toy.npz")
    assert data.factor_names == MPI3D_FACTORS
    assert data.factors is not None
    assert data.factors[40].tolist() == [0, 0, 0, 0, 0, 1, 0]
    assert data.images_at([40])[0, :, 0, 0].tolist() == [10, 20, 30]
