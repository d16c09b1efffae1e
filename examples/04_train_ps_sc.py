"""Train the paper's model from Python, and leave a page about what it learned.

`sc-layers train` does the same from the command line. The default is a first glance of about a minute: colours begin to
lie on codes of their own after some ten thousand images (`make demo`).
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
    parser.add_argument("--outdir", type=Path, default=Path("out"))
    parser.add_argument("--kimg", type=float, default=4, help="length of the training in thousands of images")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    dataset = open_dataset("shapes3d", resolution=32)
    kimg = arguments.kimg
    config = training_preset("demo").replace(
        total_kimg=kimg, tick_kimg=kimg / 8, snapshot_kimg=kimg / 2, seed=arguments.seed
    )
    networks = network_preset("demo", dataset.resolution, dataset.num_channels)
    state = TrainingState.start(config, networks)
    print(f"generator: {networks.generator.to_dict()['module_list']}")
    run_dir = create_run_dir(arguments.outdir, "shapes3d32")
    network = train(state, dataset, run_dir, {"data": "shapes3d", "resolution": 32, "preset": "demo"})
    write_report(run_dir, run_dir / "report.html", make_distance("mse"))
    print(f"\nthe network is {network}")
    print(f"look at {run_dir / 'report.html'}; go on with: sc-layers train --resume {run_dir} --kimg 72")


if __name__ == "__main__":
    main()
