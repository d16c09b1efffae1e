"""Attributes taken over and flipped, and planes of two codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sc_layers.pictures.edits import flip_sheet, plane_sheet, rotated_sheet, transfer_sheet, with_codes_of, with_values


def generator(codes: Tensor, noise_mode: str = "const") -> Tensor:
    """Images of one colour, whose channels are the first three codes."""
    return codes[:, :3, None, None].expand(-1, -1, 80, 80).clamp(-1, 1)


def codes(*values: float) -> Tensor:
    return torch.tensor([values])


def colours(sheet: Tensor) -> set[tuple[int, ...]]:
    """Colours of whole images in a sheet."""
    found, counts = sheet.flatten(1).unique(dim=1, return_counts=True)
    return {tuple(colour.tolist()) for colour, count in zip(found.T, counts, strict=True) if count >= 80 * 80}


def test_codes_come_from_another_picture() -> None:
    ours, theirs = codes(1.0, 2.0, 3.0), codes(4.0, 5.0, 6.0)
    assert with_codes_of(ours, theirs, [0, 2]).tolist() == [[4, 2, 6]]
    assert ours.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="code 3 does not exist: there are 3, 0 to 2"):
        with_codes_of(ours, theirs, [3])


def test_codes_get_values() -> None:
    ours = codes(1.0, 2.0, 3.0)
    assert with_values(ours, {2: -0.5, 0: 9.0}).tolist() == [[9, 2, -0.5]]
    assert ours.tolist() == [[1, 2, 3]]
    with pytest.raises(ValueError, match="code 7 does not exist: there are 3, 0 to 2"):
        with_values(ours, {7: 1.0})


def test_each_attribute_of_each_target_is_taken_over() -> None:
    black, white = codes(-1.0, -1.0, -1.0), codes(1.0, 1.0, 1.0)
    sheet = transfer_sheet(
        {"ours": (generator, black)}, {"theirs": (generator, white)}, {"red": [0], "cold": [1, 2]}, "title"
    )
    assert colours(sheet) == {(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 255)}


def test_signs_are_turned() -> None:
    sheet = flip_sheet({"ours": (generator, codes(1.0, -1.0, -1.0))}, [0, 1], {0: "red"}, "title")
    assert {(255, 0, 0), (0, 0, 0), (255, 255, 0)} <= colours(sheet)


def test_a_plane_holds_every_pair_of_values() -> None:
    sheet = plane_sheet(generator, codes(-1.0, -1.0, -1.0), (0, 2), [-1.0, 1.0])
    assert {(0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 0, 255)} <= colours(sheet)
    with pytest.raises(ValueError, match="the plane needs two codes, got 1 twice"):
        plane_sheet(generator, codes(0.0, 0.0, 0.0), (1, 1), [0.0])


def test_a_turned_sweep_changes_both_codes() -> None:
    sheet = rotated_sheet(generator, codes(-1.0, -1.0, -1.0), (0, 2), [-1.0, 1.0])
    found = colours(sheet)
    assert {(0, 0, 128), (255, 0, 128), (128, 0, 0), (128, 0, 255)} <= found  # along the codes themselves
    assert (218, 0, 218) in found  # half way between: cos 45 of both
