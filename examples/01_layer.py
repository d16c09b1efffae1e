"""One layer by itself: it finds out where a code acts, from examples of what the code does.

A code brightens the lower right quarter of a feature map. The layer sees features, codes and results, and nothing of
where: its mask finds the quarter. Leaves `layer.png`, the mask before and after.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sc_layers import SpatialConstriction
from sc_layers.images import save_png, shown_masks, to_uint8
from sc_layers.pictures.sheet import draw_sheet

CHANNELS, SIZE, BATCH = 8, 16, 32
REGION = torch.zeros(SIZE, SIZE)
REGION[SIZE // 2 : -1, SIZE // 2 : -1] = 1  # masks are 0 in the last row and column, by definition


def features() -> Tensor:
    """Random maps [N, C, H, W], the first channel 1 everywhere: gates read the mean of every channel."""
    x = torch.randn(BATCH, CHANNELS, SIZE, SIZE)
    x[:, 0] = 1
    return x


def brightened(x: Tensor, codes: Tensor) -> Tensor:
    """What the code does: in the region, maps are normalised and shifted by it."""
    return torch.lerp(x, F.instance_norm(x) + codes[:, :, None, None], REGION)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    layer = SpatialConstriction(CHANNELS, SIZE, num_codes=1, num_rects=1)
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)

    def mask() -> Tensor:
        _, masks = layer(features(), torch.zeros(BATCH, 1), return_masks=True)
        return torch.mean(masks.detach(), dim=(0, 1))

    before = mask()
    for step in range(arguments.steps):
        x, codes = features(), torch.randn(BATCH, 1)
        loss = F.mse_loss(layer(x, codes), brightened(x, codes))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % (arguments.steps // 5) == 0:
            print(f"step {step}: error {loss:.3f}")
    after = mask()
    found = after > after.max() / 2  # a fainter mask with larger styles does the same
    overlap = float((found & REGION.bool()).sum() / (found | REGION.bool()).sum())
    print(f"the mask and the place where the code acts overlap by {overlap:.0%}")
    shown = to_uint8(2 * shown_masks(torch.stack([before, after, REGION])[None, :, None]) - 1)
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    heads = ["before", "after", "where it acts"]
    save_png(draw_sheet(shown, ["mask"], heads, mask_scale=True), arguments.outdir / "layer.png")
    print(f"look at {arguments.outdir / 'layer.png'}")


if __name__ == "__main__":
    main()
