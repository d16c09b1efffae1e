"""Module lists for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from sc_layers.models.module_list import (
    ConstSpec,
    ConvSpec,
    GlobalSpec,
    ModuleSpec,
    NoiseSpec,
    SoftmaxSpec,
    SpatialSpec,
    module_sizes,
)

_CODE_SPECS = st.one_of(
    st.builds(SpatialSpec, num_rects=st.integers(1, 3), num_codes=st.integers(1, 3)),
    st.builds(SoftmaxSpec, num_codes=st.integers(1, 3)),
    st.builds(GlobalSpec, num_codes=st.integers(1, 3)),
)
_SPECS = st.one_of(
    _CODE_SPECS,
    st.builds(
        ConvSpec, resample=st.sampled_from(["id", "up", "down"]), layers=st.integers(1, 2), residual=st.booleans()
    ),
    st.builds(NoiseSpec, layers=st.integers(1, 2)),
)


def _is_possible(modules: tuple[ModuleSpec, ...]) -> bool:
    try:
        sizes = module_sizes(modules)
    except ValueError:
        return False
    return min(sizes) >= 2 and sizes[-1] >= 4 and max(sizes) <= 16


@st.composite
def module_lists(draw: st.DrawFn) -> tuple[ModuleSpec, ...]:
    """Lists of up to seven modules of which at least one reads codes."""
    before, after = (draw(st.lists(_SPECS, max_size=3)) for _ in range(2))
    return (ConstSpec(draw(st.integers(1, 4))), *before, draw(_CODE_SPECS), *after)


# Those whose features are 2x2 to 16x16 pixels large, and their images 4x4 at least.
possible_module_lists = module_lists().filter(_is_possible)
