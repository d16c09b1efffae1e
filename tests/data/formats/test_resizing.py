from __future__ import annotations

import numpy as np
import pytest

from sc_layers.data.formats.resizing import crop_square, parse_crop, resize
from tests.data.files import random_pixels
from tests.tolerances import LEVEL

WIDE = random_pixels(1, size=12)[0, :8]


def test_the_middle_is_cut_out() -> None:
    np.testing.assert_array_equal(crop_square(WIDE, "center"), WIDE[:, 2:10])
    np.testing.assert_array_equal(crop_square(WIDE, 4), WIDE[2:6, 4:8])


def test_a_crop_larger_than_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="it has 12x8 pixels, too few for a crop of 9x9"):
        crop_square(WIDE, 9)


def test_a_picture_that_is_not_square_needs_a_crop() -> None:
    with pytest.raises(ValueError, match="it has 12x8 pixels, expected a square; --crop center"):
        crop_square(WIDE, None)


def test_the_celeba_crop_needs_the_size_of_celeba() -> None:
    assert crop_square(np.zeros((218, 178, 3), np.uint8), "celeba").shape == (128, 128, 3)
    with pytest.raises(ValueError, match="it has 12x8 pixels, expected 178x218 for the celeba crop"):
        crop_square(WIDE, "celeba")


@pytest.mark.parametrize(("text", "crop"), [("center", "center"), ("celeba", "celeba"), ("128x128", 128)])
def test_crops_are_named_or_given_in_pixels(text: str, crop: str | int) -> None:
    assert parse_crop(text) == crop


@pytest.mark.parametrize("text", ["", "128", "128x64", "0x0", "middle", "999999x999999"])
def test_other_crops_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"crop must be center, celeba or a square such as 128x128, got {text!r}"):
        parse_crop(text)


@pytest.mark.parametrize("channels", [1, 3])
def test_box_takes_the_mean_of_an_area(channels: int) -> None:
    pixels = random_pixels(1, size=8, channels=3)[0][..., :channels]
    means = pixels.reshape(4, 2, 4, 2, channels).mean((1, 3))
    np.testing.assert_allclose(resize(pixels, 4, "box"), means, atol=LEVEL)


def test_lanczos_sharpens_an_edge_beyond_its_sides_and_box_does_not() -> None:
    pixels = np.full((16, 16, 1), 50, np.uint8)
    pixels[:, 8:] = 200
    sharp, flat = resize(pixels, 4, "lanczos"), resize(pixels, 4, "box")
    assert sharp.min() < 50
    assert sharp.max() > 200
    assert np.unique(flat).tolist() == [50, 200]


def test_pictures_of_the_wanted_size_are_left_alone() -> None:
    pixels = random_pixels(1)[0]
    assert resize(pixels, 8, "lanczos") is pixels
