"""Train the PS-SC model on rendered 3D shapes for about ten minutes on two cores, and show what each code does.

Leaves `demo/report.html`: a sweep of every code with its mask, what the codes have to do with the factors of the
images, losses, real and generated images.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from sc_layers.data import open_dataset
from sc_layers.metrics import make_distance
from sc_layers.models import network_preset
from sc_layers.pictures.report import write_report
from sc_layers.training import TrainingState, create_run_dir, train, training_preset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("demo"))
    parser.add_argument("--kimg", type=float, help="length of the training in thousands of images")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    overrides = {"seed": arguments.seed} | ({"total_kimg": arguments.kimg} if arguments.kimg else {})
    config = training_preset("demo").replace(**overrides)
    dataset = open_dataset("shapes3d", resolution=32)
    networks = network_preset("demo", dataset.resolution, dataset.num_channels)
    state = TrainingState.start(config, networks)
    run_dir = create_run_dir(arguments.outdir, "shapes3d32-demo")
    print(f"training on {config.total_kimg:g} thousand images; snapshots and pictures go to {run_dir}")
    train(state, dataset, run_dir, {"data": "shapes3d", "resolution": dataset.resolution, "preset": "demo"})
    page = arguments.outdir / "report.html"
    write_report(run_dir, page, make_distance("mse"))
    print(f"\nlook at {page}")


if __name__ == "__main__":
    main()
