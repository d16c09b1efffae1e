"""Attach spatial constriction to a StyleGAN2: nothing changes at first, then codes ride in w, and it comes off again.

The generator is the small one of `attach.py`, with the conventions of stylegan2-ada-pytorch; yours would come out of a
pickle. `attach.py` goes on from here: it trains before and after, and shows what the codes learn.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from attach import Generator

from sc_layers import attach_spatial_constriction
from sc_layers.attach import (
    codes_of,
    constriction_layers,
    constriction_parameters,
    detach_spatial_constriction,
    images_and_masks,
    with_codes,
)
from sc_layers.images import save_png, shown_masks, to_uint8
from sc_layers.pictures.sheet import draw_sheet

NUM_CODES, RESOLUTIONS = 4, [8, 16]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("out"))
    arguments = parser.parse_args()
    torch.manual_seed(0)
    G = Generator().eval()
    z = torch.randn(2, G.z_dim)
    before = G(z, noise_mode="const")

    attach_spatial_constriction(G, num_codes=NUM_CODES, resolutions=RESOLUTIONS)
    wide = torch.cat([z, torch.randn(2, NUM_CODES)], dim=1)  # the codes are the last entries of z
    print("images are bit-equal after attaching:", torch.equal(G(wide, noise_mode="const"), before))
    print("codes a layer:", [layer.num_codes for layer in constriction_layers(G)])
    print("new parameters:", sum(parameter.numel() for parameter in constriction_parameters(G)))

    ws = G.mapping(wide, None)
    print("w and the codes that ride in it:", tuple(ws.shape), tuple(codes_of(G, ws).shape))
    for layer in constriction_layers(G):  # training opens the masks; here they are opened by hand
        if layer.mask_gain is not None:
            layer.mask_gain.fill_(1)
    codes = codes_of(G, ws)
    codes[:, 0] = 3
    changed, masks = images_and_masks(G, with_codes(G, ws, codes))
    images, _ = images_and_masks(G, ws)
    difference = (changed - images).abs().mean(1, keepdim=True)
    pictures = [images[:1], changed[:1], 2 * difference[:1] / difference.max() - 1, 2 * shown_masks(masks[:1, :1]) - 1]
    row = torch.cat([picture.expand(-1, 3, -1, -1) for picture in pictures])
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    heads = ["as it is", "code 0 at 3", "difference", "its mask"]
    save_png(draw_sheet(to_uint8(row)[None], ["untrained"], heads), arguments.outdir / "attach.png")
    print(f"look at {arguments.outdir / 'attach.png'}")

    detach_spatial_constriction(G)
    print("images are bit-equal after detaching:", torch.equal(G(z, noise_mode="const"), before))


if __name__ == "__main__":
    main()
