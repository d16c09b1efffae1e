from __future__ import annotations

from typing import Any

import pytest
import torch

from sc_layers.attach import attachment_of, constriction_parameters
from sc_layers.integrations.options import (
    ConstrictionOptions,
    options_of_flags,
    parameter_groups,
    settings_of_checkpoint,
)
from tests.integrations.toys import AdaLikeGenerator


def test_no_flag_means_no_constriction() -> None:
    assert options_of_flags({"sc_codes": None, "ps_eps": None, "batch": 4}, resumed=True) is None


def test_the_values_of_the_flags_are_the_settings() -> None:
    assert options_of_flags({"sc_codes": 4, "sc_res": "8,16"}, resumed=False) == {"sc_codes": 4, "sc_res": [8, 16]}


FOUND = {"sc_codes": 3, "ps_eps": 2.0, "attached": {"num_codes": 3, "layers": ["b8"], "num_rects": 2}}


def test_a_checkpoint_tells_what_flags_leave_open() -> None:
    assert options_of_flags({}, resumed=True, found=FOUND) == FOUND
    assert options_of_flags({"ps_eps": 1.0}, resumed=True, found=FOUND) == {**FOUND, "ps_eps": 1.0}
    assert options_of_flags({"sc_codes": 5}, resumed=True, found=FOUND) == {"sc_codes": 5}


def test_settings_of_a_checkpoint_leave_out_what_belongs_to_a_run() -> None:
    attached = {"num_codes": 3, "layers": ["b8"]}
    stored = {"sc_codes": 9, "sc_freeze_g": True, "ps_weight": 0.3, "unknown": 1}
    expected = {"ps_weight": 0.3, "sc_codes": 3, "attached": attached}
    assert settings_of_checkpoint(attached, stored, recognised=True) == expected
    assert settings_of_checkpoint(attached, None, recognised=False) == {**expected, "ps_weight": 0.0}
    assert settings_of_checkpoint(None, None, recognised=False) is None


def test_the_constriction_of_a_checkpoint_is_attached_as_it_was() -> None:
    generator = AdaLikeGenerator()
    ConstrictionOptions(**FOUND).attach(generator)
    assert (attachment_of(generator).layers, attachment_of(generator).num_rects) == (("b8",), 2)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"sc_res": "8", "ps_weight": 1.0}, "--sc-res, --ps-weight needs --sc-codes"),
        ({"sc_codes": 4, "sc_freeze_g": True}, "give a network to resume from"),
        ({"sc_codes": 4, "sc_res": "8;16"}, "numbers separated by commas, got '8;16'"),
        ({"sc_codes": 0}, "sc_codes must be positive, got 0"),
        ({"sc_codes": 4, "ps_weight": -1.0}, "ps_weight must not be negative, got -1.0"),
    ],
)
def test_flags_that_cannot_be_are_named(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options_of_flags(flags, resumed=False)


def test_codes_are_spread_over_the_layers_evenly() -> None:
    generator = AdaLikeGenerator()
    ConstrictionOptions(sc_codes=7).attach(generator)
    assert [stop - start for start, stop in attachment_of(generator).groups()] == [3, 2, 2]


def test_every_parameter_is_in_one_group_with_its_multiplier() -> None:
    generator = AdaLikeGenerator()
    options = ConstrictionOptions(sc_codes=4, sc_res=[8, 16], sc_freeze_g=True, sc_lr=2.0, q_lr=3.0)
    options.attach(generator)
    recognizer = options.recognizer(32, 3)
    groups = parameter_groups(generator, recognizer, options)
    assert [multiplier for _, multiplier in groups] == [0.0, 2.0, 3.0]
    added = constriction_parameters(generator)
    assert all(a is b for a, b in zip(groups[1][0], added, strict=True))
    assert sum(len(group) for group, _ in groups) == len([*generator.parameters(), *recognizer.parameters()])


def test_a_recognition_does_not_depend_on_the_rest_of_the_batch() -> None:
    recognizer = ConstrictionOptions(sc_codes=4).recognizer(16, 3).eval()
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(recognizer(images)[:1], recognizer(images[:1]))
