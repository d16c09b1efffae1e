"""Hooks by which codes reach the layers."""

from __future__ import annotations

import pytest
import torch

from sc_layers.attach.hooks import Argument, StripCodes


def test_a_row_of_any_other_width_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"w must have 20 entries \(16 and 4 codes\), or 16 for codes 0"):
        StripCodes(16, 4, Argument("w", 0))(torch.nn.Identity(), (torch.randn(3, 17),), {})
