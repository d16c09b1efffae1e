"""Sweeps of single codes as pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sc_layers.pictures.sweeps import sweep_codes


class Bars:
    """Grey images [N, 1, 4, 4] whose row k is code k; codes 0 and 2 have masks, of which the latter is constant."""

    masked_codes = (0, 2)

    def __init__(self, channels: int = 1) -> None:
        self.channels = channels

    def __call__(self, codes: Tensor, noise_mode: str, return_masks: bool) -> tuple[Tensor, Tensor]:
        assert (noise_mode, return_masks) == ("const", True)
        images = codes[:, None, :, None].expand(-1, self.channels, -1, 4) / 2
        masks = torch.zeros(len(codes), len(self.masked_codes), 4, 4)
        if self.masked_codes:
            masks[:, 0, 1] = 0.5
            masks[:, -1] += 0.25
        return images, masks


BASE = torch.tensor([0.0, 2.0, -2.0, 0.0])


def test_each_row_sweeps_one_code_and_leaves_the_others() -> None:
    sweep = sweep_codes(Bars(), BASE, points=3, bound=2.0, dims=[3, 0])
    assert sweep.images.shape == (2, 3, 1, 4, 4)
    rows = sweep.images[:, :, 0, :, 0]
    assert rows[0].tolist() == [[128, 255, 0, 0], [128, 255, 0, 128], [128, 255, 0, 255]]
    assert rows[1].tolist() == [[0, 255, 0, 128], [128, 255, 0, 128], [255, 255, 0, 128]]


def test_masks_are_shown_on_one_scale_and_black_where_there_is_none() -> None:
    sweep = sweep_codes(Bars(channels=3), BASE, points=2)
    assert sweep.masks is not None
    assert sweep.masks.shape == (4, 3, 4, 4)
    assert sweep.masks[0, 0, :, 0].tolist() == [0, 180, 0, 0]  # a mask of 0.5
    for dim in (1, 3):
        assert not sweep.masks[dim].any()


def test_the_picture_ends_every_row_with_the_mask() -> None:
    sweep = sweep_codes(Bars(), BASE, points=3)
    picture = sweep.picture()
    assert picture.shape == (1, 4 * 4, 4 * 4)
    inside = slice(1, 3)  # the outline covers the border of every image
    assert torch.equal(picture[:, :4, 12:][:, inside, inside], sweep.masks[0][:, inside, inside])


def test_the_frames_go_to_and_fro_above_the_masks() -> None:
    sweep = sweep_codes(Bars(), BASE, points=4)
    frames = sweep.frames()
    assert len(frames) == 6
    assert all(frame.shape == (1, 2 * 4, 4 * 4) for frame in frames)
    assert torch.equal(frames[1], frames[5])
    assert torch.equal(frames[2], frames[4])
    assert not torch.equal(frames[0], frames[3])


def test_a_generator_without_masks_gives_none() -> None:
    generator = Bars()
    generator.masked_codes = ()
    sweep = sweep_codes(generator, BASE, points=3)
    assert sweep.masks is None
    assert sweep.picture().shape == (1, 4 * 4, 3 * 4)
    assert sweep.frames()[0].shape == (1, 4, 4 * 4)


def test_images_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="values that are not finite"):
        sweep_codes(Bars(), BASE * float("nan"), points=2, dims=[0])
