"""Sheets: text around images, a scale for masks, orange where a mask is open."""

from __future__ import annotations

import pytest
import torch

from sc_layers.pictures.sheet import beside, check_cells, draw_sheet, overlaid, stacked

WHITE = torch.full((3,), 255)


def rows(count: int = 2, columns: int = 3, size: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.full((count, columns, channels, size, size), 7, dtype=torch.uint8)


def test_small_images_are_enlarged_by_whole_numbers_and_nothing_else_is_of_their_colour() -> None:
    sheet = draw_sheet(rows(), ["one", "two"], ["a", "b", "c"])
    assert sheet.dtype == torch.uint8
    assert int((sheet == 7).all(0).sum()) == 6 * 80 * 80
    assert torch.equal(sheet[:, 0, 0].long(), WHITE)


def test_grey_images_and_large_ones_are_drawn_as_they_are() -> None:
    sheet = draw_sheet(rows(1, 1, 100, 1), ["one"], ["a"])
    assert int((sheet == 7).all(0).sum()) == 100 * 100


def test_text_makes_room_for_itself() -> None:
    short = draw_sheet(rows(), ["one", "two"], ["a", "b", "c"])
    long = draw_sheet(rows(), ["one", "a much longer label\nof two lines"], ["a", "b", "c"])
    titled = draw_sheet(rows(), ["one", "two"], ["a", "b", "c"], title="A title")
    scaled = draw_sheet(rows(), ["one", "two"], ["a", "b", "c"], mask_scale=True)
    assert long.shape[2] > short.shape[2] + 50
    assert titled.shape[1] > short.shape[1]
    assert scaled.shape[1] > short.shape[1]
    head = draw_sheet(rows(1, 2), ["one"], ["a head that is wider than the image", "b"])
    assert head.shape[2] > draw_sheet(rows(1, 2), ["one"], ["a", "b"]).shape[2] + 100


def test_as_many_labels_and_heads_as_rows_and_columns() -> None:
    with pytest.raises(ValueError, match="2 x 3 images need as many labels and heads, got 1 and 3"):
        draw_sheet(rows(), ["one"], ["a", "b", "c"])


def test_a_sheet_that_nobody_looks_at_is_refused_before_it_is_drawn() -> None:
    check_cells(100, 100)
    with pytest.raises(ValueError, match="a sheet of 1,000 x 11 images is too large"):
        check_cells(1000, 11)
    with pytest.raises(ValueError, match="too large"):
        draw_sheet(torch.zeros(101, 100, 1, 1, 1, dtype=torch.uint8), [""] * 101, [""] * 100)


def test_orange_shows_where_a_mask_is_open() -> None:
    image = torch.full((1, 8, 8), 100, dtype=torch.uint8)
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1
    shown = overlaid(image, mask)
    assert shown[:, 4, 0].tolist() == [100, 100, 100]
    red, green, blue = shown[:, 4, 7].tolist()
    assert red > green > blue
    assert overlaid(image, torch.ones(2, 2)).shape == (3, 8, 8)


def test_pictures_beside_and_below_each_other_are_filled_with_white() -> None:
    low, high = torch.zeros(3, 2, 5, dtype=torch.uint8), torch.zeros(3, 4, 1, dtype=torch.uint8)
    row = beside([low, high])
    assert row.shape == (3, 4, 6)
    assert (row[:, 2:, :5] == 255).all()
    assert not row[:, :2].any()
    column = stacked([low, high])
    assert column.shape == (3, 6, 5)
    assert (column[:, 2:, 1:] == 255).all()
