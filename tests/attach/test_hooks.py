"""Hooks by which codes reach the layers."""

from __future__ import annotations

import pytest
import torch

from sc_layers.attach.hooks import Argument, StripCodes, split_codes


def test_a_row_of_any_other_width_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"w must have 20 entries \(16 and 4 codes\), or 16 for codes 0"):
        StripCodes(16, 4, Argument("w", 0))(torch.nn.Identity(), (torch.randn(3, 17),), {})


def test_a_single_row_without_codes_lies_in_memory_of_its_own() -> None:
    rows = torch.randn(4, 20)
    ((stripped,), _) = StripCodes(16, 4, Argument("w", 0))(torch.nn.Identity(), (rows[1:2],), {})
    for alone in (stripped, split_codes(rows[1:2], 16, 4, "w")[0]):
        assert torch.equal(alone, rows[1:2, :16])
        assert alone.untyped_storage().nbytes() == 16 * rows.element_size()
