"""Figures and sliders for notebooks, drawn without a screen."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sc_layers import SpatialConstriction
from sc_layers.images import figure_image
from sc_layers.metrics import rotation_curve
from sc_layers.metrics.traversal_length import traversal_perceptual_length
from sc_layers.pictures import code_sliders, plot_gates, plot_masks, plot_traversal, sweep_codes
from tests.networks import NUM_CODES, small_networks
from tests.tolerances import ROUNDING


@pytest.fixture
def generator() -> Any:
    return small_networks()["G_ema"].eval()


def images_in(figure: Any) -> list[Any]:
    return [image for axes in figure.axes for image in axes.get_images()]


def test_a_traversal_has_a_labelled_row_for_each_code_and_masks_on_one_scale(generator: Any) -> None:
    figure = plot_traversal(generator, torch.zeros(NUM_CODES), points=5, names={1: "smile"})
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert labels == ["code 0", "smile", "code 2", "mask"]
    assert [axes.get_title() for axes in figure.axes[:6]] == ["-2", "-1", "0", "+1", "+2", "mask"]
    assert {image.get_clim() for image in images_in(figure)[5::6]} == {(0.0, 1.0)}
    assert figure_image(figure).shape[0] == 3


def test_a_traversal_shows_the_images_of_its_codes(generator: Any) -> None:
    base = torch.tensor([[0.4, -0.2, 0.9]])
    figure = plot_traversal(generator, base, dims=[2], points=3, bound=(0.0, 1.0))
    assert [axes.get_title() for axes in figure.axes[:3]] == ["0", "+0.5", "+1"]
    codes = torch.tensor([[0.4, -0.2, 0.5]])
    expected = sweep_codes(generator, codes[0], 3, (0.0, 1.0), [2]).images[0, 1]
    assert np.array_equal(images_in(figure)[1].get_array()[..., 0], expected[0].numpy())


def test_masks_are_shown_as_they_are_on_one_scale() -> None:
    masks = torch.rand(1, 7, 6, 5)
    figure = plot_masks(masks, {0: "smile"})
    shown = images_in(figure)
    assert len(shown) == 7
    assert {image.get_clim() for image in shown} == {(0.0, 1.0)}
    assert np.array_equal(shown[3].get_array(), masks[0, 3].numpy())
    assert figure.axes[0].get_title() == "smile"
    with pytest.raises(ValueError, match=r"masks of one picture are \[K, H, W\].*got \(2, 3, 4, 4\)"):
        plot_masks(torch.zeros(2, 3, 4, 4))


def test_gates_of_all_rectangles_are_plotted_over_rows_and_columns() -> None:
    torch.manual_seed(0)
    layer, x = SpatialConstriction(6, (5, 7), num_codes=2, num_rects=3), torch.randn(2, 6, 5, 7)
    figure = plot_gates(layer, x)
    gates_h, gates_w = layer.gates(x)
    lines = [line.get_ydata() for axes in figure.axes for line in axes.get_lines()]
    expected = [gate for code in range(2) for gates in (gates_h, gates_w) for gate in gates[0, code].detach().numpy()]
    assert len(lines) == len(expected) == 12
    assert all(np.allclose(line, gate, **ROUNDING) for line, gate in zip(lines, expected, strict=True))
    assert figure.axes[-1].get_xlabel() == "column of the features"


def test_a_slider_draws_the_image_of_its_value(generator: Any) -> None:
    widget = code_sliders(generator, torch.tensor([0.5, 0.0, -0.5]), {0: "smile"})
    picture, sliders = widget.children[0], widget.children[1].children
    assert [slider.description for slider in sliders] == ["smile", "code 1", "code 2"]
    before = picture.value
    sliders[1].value = 2.0
    assert picture.value != before
    drawn = np.asarray(Image.open(io.BytesIO(picture.value)))
    expected = sweep_codes(generator, torch.tensor([0.5, 0.0, -0.5]), 2, (0.0, 2.0), [1]).images[0, 1, 0]
    assert np.array_equal(drawn, expected.numpy())
    sliders[1].value = 0.0
    assert picture.value == before


@pytest.mark.filterwarnings("ignore:.*Glyph")
def test_results_show_themselves_in_a_notebook(generator: Any) -> None:
    results = [
        sweep_codes(generator, torch.zeros(NUM_CODES), 3),
        rotation_curve(generator, (0, 1), angles=(0, 90), num_points=3, distance="mse"),
        traversal_perceptual_length(generator, distance="mse"),
        plot_masks(torch.rand(2, 4, 4)),
    ]
    for result in results:
        assert result._repr_png_().startswith(b"\x89PNG")
