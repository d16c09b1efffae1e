"""Edit pictures by their codes: take over a code from another picture, and move one code along its range.

Takes a run of `04_train_ps_sc.py`, or any network file of this package. `sc-layers edit` and `sc-layers traverse` do
the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from sc_layers import load_network
from sc_layers.checkpoints.snapshots import find_snapshot
from sc_layers.images import save_png
from sc_layers.models.latents import codes_of_seed, recorded_latents
from sc_layers.pictures.edits import transfer_sheet
from sc_layers.pictures.sweeps import sweep_codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path, help="folder of a run, or network file")
    parser.add_argument("--outdir", type=Path, default=Path("out"))
    arguments = parser.parse_args()

    networks = load_network(find_snapshot(arguments.network))
    G, latents = networks["G_ema"], recorded_latents(networks["meta"], None)

    def picture(seed: int) -> tuple[torch.nn.Module, torch.Tensor]:
        return G, codes_of_seed(seed, G.num_codes, latents)

    attributes = {f"code {code}": [code] for code in range(G.num_codes)}
    sources, targets = {f"seed {seed}": picture(seed) for seed in (1, 2, 3)}, {"seed 7": picture(7)}
    sheet = transfer_sheet(sources, targets, attributes, "one code from seed 7")
    arguments.outdir.mkdir(parents=True, exist_ok=True)
    save_png(sheet, arguments.outdir / "transfer.png")
    save_png(sweep_codes(G, picture(1)[1][0]).sheet(overlay=True), arguments.outdir / "sweep.png")
    print(f"look at {arguments.outdir / 'transfer.png'} and {arguments.outdir / 'sweep.png'}")


if __name__ == "__main__":
    main()
