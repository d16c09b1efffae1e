"""Figures for notebooks: sweeps, masks and gates, with labels and scales; and sliders for the codes."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .._optional import require
from ..images import check_images, figure_bytes, png_bytes, to_uint8
from ..layers import SpatialConstriction
from .edits import with_values
from .sheet import written
from .sweeps import sweep_codes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")  # of Okabe and Ito
_MAP = "cividis"  # of even steps, also for the colour-blind
_CELL = 1.1  # inches
_DPI = 72  # of what stands in a notebook
_SLIDER_BOUND = 3.0


@functools.cache
def _figure_class() -> Any:
    """matplotlib's figure, which a notebook shows though no `pyplot` holds it; made here so that importing is cheap."""
    base: Any = require("matplotlib.figure", "notebook").Figure

    class NotebookFigure(base):  # type: ignore[misc]
        def _repr_png_(self) -> bytes:
            return figure_bytes(self, dpi=_DPI)

    return NotebookFigure


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of a size in inches, and its axes [rows, columns]."""
    figure = _figure_class()(layout="constrained", figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False, sharey=True)


def _name(code: int, names: Mapping[int, str]) -> str:
    return names.get(code) or f"code {code}"


def plot_traversal(
    generator: Any,
    codes: Tensor | None = None,
    dims: Sequence[int] | None = None,
    points: int = 7,
    bound: float | tuple[float, float] = 2.0,
    names: Mapping[int, str] | None = None,
) -> Any:
    """Each row sweeps one code; its mask stands at the end, on one scale from 0 to 1 for all.

    Args:
        generator: of this package, or an `AttachedGenerator`; it is in the mode that it is to run in.
        codes: the others' values [K], or [1, K]; zeros when None.
        dims: which codes to sweep; all when None.
        points: images a row.
        bound: each code goes from minus this to this, or from the first of two numbers to the second.
        names: what codes are called, by number, as far as they have names.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.

    Raises:
        ValueError: a code that does not exist, fewer than two points, or images that are not finite.
        ImportError: matplotlib is missing.
    """
    device = next(generator.parameters()).device
    base = torch.zeros(generator.num_codes) if codes is None else codes.detach().reshape(-1)
    sweep = sweep_codes(generator, base.to(device), points, bound, None if dims is None else list(dims))
    masks = None if sweep.masks is None else (sweep.masks[:, 0] / 255) ** 2  # brightness is the root
    columns = points + (masks is not None)
    figure, axes = _figure(len(sweep.dims), columns, _CELL * columns + 1, _CELL * len(sweep.dims) + 0.4)
    shown = None
    for row, code in enumerate(sweep.dims):
        for column in range(points):
            image = sweep.images[row, column].expand(3, -1, -1).permute(1, 2, 0)
            axes[row, column].imshow(image.numpy(), interpolation="nearest")
        if masks is not None:
            shown = axes[row, -1].imshow(masks[row].numpy(), vmin=0, vmax=1, cmap=_MAP)
        axes[row, 0].set_ylabel(_name(code, names or {}), rotation=0, ha="right", va="center")
    for column, value in enumerate(sweep.values):
        axes[0, column].set_title(written(value), fontsize="small")
    if shown is not None:
        axes[0, -1].set_title("mask", fontsize="small")
        figure.colorbar(shown, ax=axes[:, -1], label="mask")
    for one in axes.flat:
        one.set(xticks=[], yticks=[])
    return figure


def plot_masks(masks: Tensor, names: Mapping[int, str] | None = None, columns: int = 5) -> Any:
    """Masks beside each other, on one scale from 0 to 1.

    Args:
        masks: [K, H, W], or [1, K, H, W], in [0, 1], as a layer returns them.
        names: what codes are called, by number, as far as they have names.
        columns: masks a row.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.

    Raises:
        ValueError: masks of another shape.
        ImportError: matplotlib is missing.
    """
    masks = masks.detach().float().cpu()
    if masks.ndim == 4 and len(masks) == 1:
        masks = masks[0]
    if masks.ndim != 3 or not len(masks) or columns < 1:
        raise ValueError(f"masks of one picture are [K, H, W], in at least a column, got {tuple(masks.shape)}")
    columns = min(columns, len(masks))
    rows = -(-len(masks) // columns)
    figure, axes = _figure(rows, columns, 1.8 * columns + 0.8, 1.9 * rows)
    for one in axes.flat[len(masks) :]:
        one.set_axis_off()
    for code, (one, mask) in enumerate(zip(axes.flat, masks, strict=False)):
        shown = one.imshow(mask.numpy(), vmin=0, vmax=1, cmap=_MAP)
        one.set(xticks=[], yticks=[], title=_name(code, names or {}))
    figure.colorbar(shown, ax=axes, label="mask")
    return figure


@torch.no_grad()
def plot_gates(layer: SpatialConstriction, x: Tensor, names: Mapping[int, str] | None = None) -> Any:
    """The gates of the rectangles of each code, over rows and columns of the features (Eq. 3).

    Args:
        layer: the constriction.
        x: features [N, C, H, W], of which the first sample is shown.
        names: what codes are called, by number, as far as they have names.

    Returns:
        A `matplotlib.figure.Figure`, which a notebook shows.

    Raises:
        ImportError: matplotlib is missing.
    """
    both = layer.gates(x[:1])
    figure, axes = _figure(layer.num_codes, 2, 7, 1.3 * layer.num_codes + 0.6)
    for side, (gates, title) in enumerate(zip(both, ("row of the features", "column of the features"), strict=True)):
        for code in range(layer.num_codes):
            for rectangle, gate in enumerate(gates[0, code].cpu()):
                colour = COLOURS[rectangle % len(COLOURS)]
                axes[code, side].plot(gate.numpy(), color=colour, label=f"rectangle {rectangle}")
            axes[code, side].set(ylim=(-0.03, 1.03))
        axes[-1, side].set_xlabel(title)
    for code in range(layer.num_codes):
        axes[code, 0].set_ylabel(f"gate of\n{_name(code, names or {})}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside right upper", frameon=False, fontsize="small")
    return figure


def code_sliders(generator: Any, codes: Tensor | None = None, names: Mapping[int, str] | None = None) -> Any:
    """A widget for notebooks: a slider for every code, and the image that they make.

    Args:
        generator: of this package, or an `AttachedGenerator`; it is in the mode that it is to run in.
        codes: values [K], or [1, K], to start from; zeros when None.
        names: what codes are called, by number, as far as they have names.

    Returns:
        An `ipywidgets.HBox` of the image and the sliders.

    Raises:
        ImportError: ipywidgets or pillow is missing.
    """
    widgets = require("ipywidgets", "notebook")
    device = next(generator.parameters()).device
    base = torch.zeros(1, generator.num_codes) if codes is None else codes.detach().reshape(1, -1).float()
    base = base.to(device)
    picture = widgets.Image(format="png", width=320)
    sliders = [
        widgets.FloatSlider(
            value=min(max(float(value), -_SLIDER_BOUND), _SLIDER_BOUND),
            min=-_SLIDER_BOUND,
            max=_SLIDER_BOUND,
            step=0.05,
            description=_name(code, names or {}),
        )
        for code, value in enumerate(base[0])
    ]

    @torch.no_grad()
    def draw(_: Any = None) -> None:
        values = with_values(base, {code: slider.value for code, slider in enumerate(sliders)})
        picture.value = png_bytes(to_uint8(check_images(generator(values, noise_mode="const"), values)).cpu()[0])

    for slider in sliders:
        slider.observe(draw, names="value")
    draw()
    return widgets.HBox([picture, widgets.VBox(sliders)])
