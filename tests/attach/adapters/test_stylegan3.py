"""Generators whose features exceed the picture by a margin."""

from __future__ import annotations

from sc_layers.attach import (
    attach_spatial_constriction,
    attachment_of,
)
from tests.integrations.toys import (
    MarginGenerator,
)


def test_a_sampling_rate_means_its_last_layer() -> None:
    generator = attach_spatial_constriction(MarginGenerator(), 4, [8, 16])
    assert attachment_of(generator).layers == ("L1_12_6", "L2_20_6")
    by_name = attach_spatial_constriction(MarginGenerator(), 2, layers=["L0_12_6"])
    assert attachment_of(by_name).layers == ("L0_12_6",)
