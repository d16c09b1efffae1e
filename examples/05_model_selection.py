"""Rank snapshots without labels, by traversal perceptual length, and compare with what labels would have said.

Takes the runs of `04_train_ps_sc.py`, several seeds of them for a ranking that means something. `sc-layers select` does
the same from the command line.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sc_layers import load_network, traversal_perceptual_length
from sc_layers.checkpoints.snapshots import snapshots_in
from sc_layers.metrics import Sampling, TPLSettings, factor_vae, make_distance, open_factor_data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
    parser.add_argument("--votes", type=int, default=100, help="votes of FactorVAE; the standard is 800")
    parser.add_argument("--traversals", type=int, default=50, help="pictures around which TPL sweeps the codes")
    parser.add_argument(
        "--distance", default="efficientnet", help="its weights come in a package; lpips is the paper's"
    )
    arguments = parser.parse_args()

    dataset = open_factor_data("shapes3d", resolution=32)
    distance = make_distance(arguments.distance)
    settings = TPLSettings(num_traversals=arguments.traversals)
    rows = []
    for path in (path for run in arguments.runs for path in snapshots_in(run)):
        networks = load_network(path)
        tpl = traversal_perceptual_length(
            networks["G_ema"], settings=settings, distance=distance, sampling=Sampling("uniform")
        )
        votes = {"num_train": arguments.votes, "num_eval": arguments.votes, "num_variance": 10 * arguments.votes}
        score = factor_vae(networks["Q"], dataset, **votes).score
        rows.append((tpl.total, tpl.num_active, score, f"{path.parent.name}/{path.name}"))
    print(f"{'TPL':>8} {'active':>7} {'FactorVAE':>10}  snapshot (the shortest sweeps first)")
    for total, active, score, name in sorted(rows):
        print(f"{total:>8.2f} {active:>7} {score:>10.2f}  {name}")


if __name__ == "__main__":
    main()
