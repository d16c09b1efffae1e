"""Module lists: text and typed records, sizes, and the errors that name what is wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from sc_layers.models.module_list import (
    ConstSpec,
    ConvSpec,
    GlobalSpec,
    ModuleSpec,
    NoiseSpec,
    SoftmaxSpec,
    SpatialSpec,
    check_resolution,
    format_module_list,
    module_sizes,
    num_codes,
    parse_module_list,
    with_constriction,
)
from tests.models.module_lists import module_lists

EVERY_MODULE = (
    "[Const-16, Conv-up-2, C_global-2, ResConv-down-1, ResConv-up-2, C_spgroup-2-3, Conv-down-1, C_spgroup_sm-2, "
    "ResConv-id-1, Conv-id-3, Noise-2]"
)


def test_every_module_becomes_its_record() -> None:
    assert parse_module_list(EVERY_MODULE) == (
        ConstSpec(16),
        ConvSpec("up", 2),
        GlobalSpec(2),
        ConvSpec("down", 1, residual=True),
        ConvSpec("up", 2, residual=True),
        SpatialSpec(2, 3),
        ConvSpec("down", 1),
        SoftmaxSpec(2),
        ConvSpec("id", 1, residual=True),
        ConvSpec("id", 3),
        NoiseSpec(2),
    )


@settings(derandomize=True, deadline=None)
@given(module_lists())
def test_text_and_records_round_trip(specs: tuple[ModuleSpec, ...]) -> None:
    text = format_module_list(specs)
    assert parse_module_list(text) == specs
    assert parse_module_list(text.strip("[]").replace(",", "  ,")) == specs
    assert parse_module_list(specs) == specs


def test_the_text_is_that_of_the_authors() -> None:
    assert format_module_list(parse_module_list(EVERY_MODULE)) == EVERY_MODULE


@pytest.mark.parametrize("modules", ["Const-8,C_global-1", " [ Const-8 ,C_global-1 ] ", ["Const-8", GlobalSpec(1)]])
def test_brackets_spaces_and_mixed_sequences_are_read(modules: str | list[str | GlobalSpec]) -> None:
    assert parse_module_list(modules) == (ConstSpec(8), GlobalSpec(1))


def test_modules_of_size_zero_are_dropped() -> None:
    specs = parse_module_list("[Const-8, Noise-0, C_spgroup-4-0, C_global-2, Conv-up-0]")
    assert specs == (ConstSpec(8), GlobalSpec(2))


@pytest.mark.parametrize(
    "name",
    ["Conv-left-1", "C_spgroup-5", "Noise", "const-8", "C_spgroup_sm-2-3", "Noise--1", "", "Noise-1.5", "Noise-²"],
)
def test_an_unknown_module_is_named_with_the_known_ones(name: str) -> None:
    with pytest.raises(ValueError, match="unknown module") as caught:
        parse_module_list(["Const-8", name])
    message = str(caught.value)
    assert repr(name) in message
    assert "C_spgroup-J-K" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "modules", ["[Conv-up-1, Const-8]", "[Const-8, Const-8]", "[Conv-id-1]", "[Const-0, Conv-id-1]"]
)
def test_a_list_starts_with_its_only_constant(modules: str) -> None:
    with pytest.raises(ValueError, match="must start with its one Const-n"):
        parse_module_list(modules)


def test_no_rectangles_is_refused() -> None:
    with pytest.raises(ValueError, match="num_rects of a C_spgroup module must be at least 1, got 0"):
        parse_module_list("[Const-8, C_spgroup-0-2]")


def test_sizes_follow_every_layer_of_a_module() -> None:
    assert module_sizes(parse_module_list(EVERY_MODULE)) == (4, 16, 16, 8, 32, 32, 16, 16, 16, 16, 16)


def test_scaling_down_to_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="ResConv-down-3 scales 4x4 features down to nothing"):
        module_sizes(parse_module_list("[Const-8, ResConv-down-3]"))


def test_a_list_that_misses_the_resolution_names_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"to 16x16 pixels, but the resolution is 32: \[Const-8, Conv-up-2\]"):
        check_resolution(parse_module_list("[Const-8, Conv-up-2]"), 32)


def test_codes_are_counted_by_module() -> None:
    assert list(map(num_codes, parse_module_list(EVERY_MODULE))) == [0, 0, 2, 0, 0, 3, 0, 2, 0, 0, 0]


LIST = "[Const-64, C_spgroup-3-5, ResConv-up-1, C_spgroup_sm-4, ResConv-up-1, C_global-2]"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, LIST),
        ({"mask": "sc"}, "[Const-64, C_spgroup-3-5, ResConv-up-1, C_spgroup-4-4, ResConv-up-1, C_spgroup-4-2]"),
        ({"mask": "softmax"}, "[Const-64, C_spgroup_sm-5, ResConv-up-1, C_spgroup_sm-4, ResConv-up-1, C_spgroup_sm-2]"),
        ({"mask": "none"}, "[Const-64, C_global-5, ResConv-up-1, C_global-4, ResConv-up-1, C_global-2]"),
        ({"num_rects": 1}, "[Const-64, C_spgroup-1-5, ResConv-up-1, C_spgroup_sm-4, ResConv-up-1, C_global-2]"),
        ({"num_codes": 8}, "[Const-64, C_spgroup-3-3, ResConv-up-1, C_spgroup_sm-3, ResConv-up-1, C_global-2]"),
        ({"num_codes": 1}, "[Const-64, C_spgroup-3-1, ResConv-up-1, ResConv-up-1]"),
    ],
)
def test_ablations_change_the_modules_that_read_codes(changes: dict[str, Any], expected: str) -> None:
    assert format_module_list(with_constriction(parse_module_list(LIST), **changes)) == expected


@pytest.mark.parametrize(
    ("modules", "changes", "message"),
    [
        (LIST, {"mask": "hard"}, "mask must be one of sc, softmax, none, got 'hard'"),
        (LIST, {"num_codes": 0}, "num_codes must be at least 1, got 0"),
        (LIST, {"mask": "none", "num_rects": 2}, "no module has 2 rectangles"),
        ("[Const-64]", {"num_codes": 2}, "no module reads codes"),
    ],
)
def test_ablations_that_make_no_sense_are_refused(modules: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_constriction(parse_module_list(modules), **changes)
