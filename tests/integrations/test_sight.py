"""What a training shows of its codes."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

from sc_layers.attach import attach_spatial_constriction, constriction_layers
from sc_layers.integrations.sight import draw_sheet, gains, report_codes, write_numbers
from tests.integrations.toys import AdaLikeGenerator


@pytest.fixture
def generator() -> AdaLikeGenerator:
    return attach_spatial_constriction(AdaLikeGenerator().eval(), 3, [8, 16], init="random")


def test_a_labelled_sheet_has_a_row_a_code_and_ends_with_the_mask(generator: AdaLikeGenerator, tmp_path: Path) -> None:
    draw_sheet(generator, tmp_path / "codes.png")
    with PIL.Image.open(tmp_path / "codes.png") as picture:
        width, height = picture.size
        right = np.asarray(picture)[:, -100:]
    assert width > 8 * 96  # label, seven points and the mask
    assert 3 * 96 < height < 4 * 96
    assert (right == right[..., :1]).all(), "masks are grey"


def test_images_that_are_not_finite_get_a_warning_not_a_sheet(generator: AdaLikeGenerator, tmp_path: Path) -> None:
    with torch.no_grad():
        generator.synthesis.b4.conv1.weight.fill_(float("nan"))
    with pytest.warns(UserWarning, match=r"codes.png is not drawn: .* 21 of 21 images"):
        draw_sheet(generator, tmp_path / "codes.png")
    assert not list(tmp_path.iterdir())


def test_gains_are_clamped_and_listed_coarse_to_fine(generator: AdaLikeGenerator) -> None:
    first, second = constriction_layers(generator)
    first.mask_gain.data = torch.tensor([-0.5, 0.25])
    second.mask_gain.data = torch.tensor([1.5])
    assert gains(generator).tolist() == [0.0, 0.25, 1.0]


def test_every_code_is_reported_by_its_error_and_its_gain(generator: AdaLikeGenerator) -> None:
    reports: dict[str, Any] = {}
    errors = torch.rand(4, 3)
    report_codes(generator, errors, reports.__setitem__)
    names = [f"SC/{what}/{code:02d}" for code in range(3) for what in ("error", "gain")]
    assert list(reports) == names
    assert torch.equal(reports["SC/error/01"], errors[:, 1])
    assert reports["SC/gain/02"] == 1


def test_numbers_are_lines_of_a_file_and_scalars_in_tensorboard(tmp_path: Path) -> None:
    for step in (0, 10):
        write_numbers({"SC/gain/00": 0.5 + step}, tmp_path, step)
    lines = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert lines == [{"step": 0, "SC/gain/00": 0.5}, {"step": 10, "SC/gain/00": 10.5}]
    reader = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("SC/gain/00")] == [(0, 0.5), (10, 10.5)]
