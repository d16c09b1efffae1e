from __future__ import annotations

import numpy as np
import pytest
import torch

from sc_layers.data import DSprites, RenderedDataset, Shapes3D

over_rendered = pytest.mark.parametrize("data", [DSprites(64), Shapes3D(32)], ids=lambda data: data.name)


@over_rendered
def test_factors_and_indices_are_two_names_of_an_image(data: RenderedDataset) -> None:
    indices = torch.randint(len(data), (20,), generator=torch.Generator().manual_seed(0))
    factors = data.factors_of(indices)
    np.testing.assert_array_equal(np.ravel_multi_index(tuple(factors.T), data.factor_sizes), indices)
    assert torch.equal(data.images_at(indices), data.images(factors))


@over_rendered
def test_samples_follow_the_generator(data: RenderedDataset) -> None:
    first, again, other = (data.sample(8, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@over_rendered
def test_sampled_factors_take_every_value_equally_often(data: RenderedDataset) -> None:
    count = 20_000
    factors = data.sample_factors(count, torch.Generator().manual_seed(0))
    for column, size in zip(factors.T, data.factor_sizes, strict=True):
        expected = count / size
        five_deviations = 5 * expected**0.5  # of a Poisson count
        np.testing.assert_allclose(np.bincount(column, minlength=size), expected, atol=five_deviations)


@over_rendered
def test_factors_may_be_a_tensor(data: RenderedDataset) -> None:
    factors = data.sample_factors(3, torch.Generator().manual_seed(0))
    assert torch.equal(data.images(torch.from_numpy(factors)), data.images(factors))


def test_a_factor_out_of_range_is_named() -> None:
    with pytest.raises(ValueError, match=r"orientation of shapes3d must lie in 0 to 14, got 15"):
        Shapes3D().images(np.array([[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 15]]))
    with pytest.raises(ValueError, match=r"scale of dsprites must lie in 0 to 5, got -1"):
        DSprites().images(np.array([[0, -1, 0, 0, 0]]))


@pytest.mark.parametrize("factors", [np.zeros(5, int), np.zeros((2, 6), int), np.zeros((2, 5))])
def test_factors_of_another_form_are_refused(factors: np.ndarray) -> None:
    with pytest.raises(TypeError, match=r"must be integers \[B, 5\] \(shape, scale, orientation"):
        DSprites().images(factors)


@pytest.mark.parametrize("indices", [[-1], [3, 737_280]])
def test_indices_out_of_range_are_refused(indices: list[int]) -> None:
    with pytest.raises(IndexError, match="do not fit dsprites with 737280 images"):
        DSprites().images_at(indices)


@pytest.mark.parametrize("indices", [3, [1.5], [[1, 2]]])
def test_indices_of_another_form_are_refused(indices: object) -> None:
    with pytest.raises(TypeError, match=r"indices must be integers \[B\]"):
        DSprites().images_at(indices)  # type: ignore[arg-type]


def test_a_picture_is_an_image_with_its_channels_last() -> None:
    data = Shapes3D(32)
    assert torch.equal(torch.from_numpy(data.picture(7)), data.images_at([7])[0].permute(1, 2, 0))
    assert data.picture_name(7) == "image 7 of shapes3d"


def test_a_data_set_describes_itself() -> None:
    assert repr(Shapes3D(32)) == "Shapes3D('shapes3d', 480000 images of 3x32x32)"
