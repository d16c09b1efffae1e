"""What is recorded on an attached generator, and how codes are spread."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from sc_layers.attach import (
    attach_spatial_constriction,
    attachment_of,
    constriction_layers,
    num_codes,
    spread,
)
from tests.attach.samples import attached, run, wide_z
from tests.integrations.toys import (
    AdaLikeGenerator,
)


@given(st.integers(1, 40), st.integers(1, 12))
def test_any_number_of_codes_is_spread_evenly_coarse_to_fine(codes: int, layers: int) -> None:
    sizes = spread(codes, layers)
    assert sum(sizes) == codes
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize(("codes", "sizes"), [(1, [1]), (2, [1, 1]), (4, [2, 1, 1]), (7, [3, 2, 2])])
def test_codes_fill_the_layers_coarse_to_fine_and_empty_layers_are_left_out(codes: int, sizes: list[int]) -> None:
    generator = attach_spatial_constriction(AdaLikeGenerator(), codes, [32, 8, 16])
    assert [layer.num_codes for layer in constriction_layers(generator)] == sizes
    assert attachment_of(generator).layers == ("b8", "b16", "b32")[: len(sizes)]
    assert num_codes(generator) == codes


def test_arguments_of_a_persistent_class_tell_that_constriction_is_attached() -> None:
    generator = attached()
    arguments = dict(generator._init_kwargs)
    with pytest.raises(TypeError, match="spatial_constriction"):
        AdaLikeGenerator(**arguments)
    recorded = arguments.pop("spatial_constriction")
    twin = attach_spatial_constriction(AdaLikeGenerator(**arguments), **recorded)
    twin.load_state_dict(generator.state_dict())
    z = wide_z()
    assert torch.equal(run(twin.eval(), z), run(generator, z))
