"""Figures of the concepts page, computed by the package itself when the site is built."""

from __future__ import annotations

import io
from collections.abc import Callable

import matplotlib
import torch
from torch import Tensor

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from sc_layers import functional

SIZE = 32  # rows and columns of the feature maps that are shown
COLORS = ("#0072B2", "#D55E00", "#009E73")  # told apart by colour-blind readers as well


def _svg(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def _peak(position: float, sharpness: float = 8.0) -> Tensor:
    """Logits [SIZE] that peak at `position` in [0, 1]."""
    return -sharpness * (torch.linspace(0, 1, SIZE) - position).abs() * 4


def band() -> bytes:
    """Two cumulative softmaxes and the band between their steps (Eq. 3)."""
    start, end = _peak(0.3), _peak(0.7)
    figure, axes = plt.subplots(figsize=(5.5, 2.6))
    curves = {
        "cumax(start)": functional.cumax(start),
        "1 - cumax(end)": 1 - functional.cumax(end),
        "gate, their product": functional.band_gate(start, end),
    }
    for (label, values), color, style in zip(curves.items(), COLORS, ("--", ":", "-"), strict=True):
        axes.plot(values, style, label=label, color=color, linewidth=2, zorder=3 if style == "-" else 4)
    axes.set(xlabel="row of the feature map", ylabel="value", ylim=(-0.02, 1.05))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


def rectangles() -> bytes:
    """Masks of one rectangle, and of the mean of four (Eq. 4 and 5)."""
    generator = torch.Generator().manual_seed(5)
    corners = torch.rand(4, 2, generator=generator) * 0.5 + 0.05
    edges = torch.stack([corners, corners + 0.3], dim=-1)  # [J, (h, w), (start, end)]
    logits = torch.stack([torch.stack([torch.stack([_peak(float(e)) for e in axis]) for axis in j]) for j in edges])
    h, w = logits[:, 0][None, None], logits[:, 1][None, None]  # [1, 1, J, 2, SIZE]
    shown = {"J = 1": functional.rectangle_masks(h[:, :, :1], w[:, :, :1]), "J = 4": functional.rectangle_masks(h, w)}
    figure, all_axes = plt.subplots(1, 2, figsize=(6, 2.8))
    for axes, (title, mask) in zip(all_axes, shown.items(), strict=True):
        image = axes.imshow(mask[0, 0], vmin=0, vmax=1, cmap="viridis")
        axes.set(title=title, xlabel="column")
    all_axes[0].set_ylabel("row")
    figure.colorbar(image, ax=all_axes, label="mask")
    return _svg(figure)


def weights() -> bytes:
    """How two overlapping codes share a row of pixels: their weights, and what stays of x (Eq. 6 and 7)."""
    masks = torch.stack([functional.band_gate(_peak(0.15), _peak(0.6)), functional.band_gate(_peak(0.4), _peak(0.9))])
    kept, shares = functional.blend_weights(masks[None, :, None])
    figure, axes = plt.subplots(figsize=(5.5, 2.6))
    for values, label, color, style in (
        (kept.reshape(-1), "what stays of x, P", COLORS[0], "-"),
        (shares[0, 0].reshape(-1), "weight of code 1, w_1", COLORS[1], "--"),
        (shares[0, 1].reshape(-1), "weight of code 2, w_2", COLORS[2], ":"),
    ):
        axes.plot(values, style, label=label, color=color, linewidth=2)
    axes.set(xlabel="column of the feature map", ylabel="share", ylim=(-0.02, 1.05))
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure)


FIGURES: dict[str, Callable[[], bytes]] = {"band": band, "rectangles": rectangles, "weights": weights}
