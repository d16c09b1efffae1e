"""Train the PS-SC model on rendered 3D shapes for about ten minutes on two cores, and show what each code does.

Leaves `demo/index.html`: real and generated images, and a sweep of every code with its mask.
"""

from __future__ import annotations

import argparse
import html
import time
from pathlib import Path
from string import Template

import torch

from sc_layers.data import open_dataset
from sc_layers.images import save_gif, save_png
from sc_layers.models import Discriminator, Generator, Recognizer, network_preset
from sc_layers.pictures.sweeps import sweep_codes
from sc_layers.training import TrainingState, create_run_dir, train, training_preset

SWEPT_SEEDS = (0, 1, 2)

PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>sc-layers: what each code learned</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
  img { image-rendering: pixelated; max-width: 100%; height: auto; }
  figure { margin: 1.5rem 0; }
  figcaption { color: #555; }
  .pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; }
  .pair img, .sweep img { width: 100%; }
</style>
<h1>What each code learned</h1>
<p>A PS-SC GAN was trained on rendered 3D shapes at $resolution pixels: $kimg thousand images in $minutes minutes
($speed images/s), without labels. Below, each row sweeps one of $codes codes from -2 to 2 while the others stay;
the last picture of a row is the code's mask, white where it acts. Rows that change the colour of the floor, a wall or
the object alone, with a mask that lies there, are what the paper calls interpretable.</p>
$sweeps
<div class="pair">
<figure><img src="$run/reals.png" alt="real images"><figcaption>Rendered images, as trained on</figcaption></figure>
<figure><img src="$run/$fakes" alt="generated images"><figcaption>Generated images</figcaption></figure>
</div>
<p>Go on with <code>sc-layers traverse $network --codes 0-3 --points 9</code>.</p>
</html>
""")

SWEEP = Template("""<figure class="sweep"><img src="traverse$seed.png" alt="sweep of every code">
<figcaption>Seed $seed (<a href="traverse$seed.gif">moving</a>)</figcaption></figure>
""")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outdir", type=Path, default=Path("demo"))
    parser.add_argument("--kimg", type=float, help="length of the training in thousands of images")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()

    overrides = {"seed": arguments.seed} | ({"total_kimg": arguments.kimg} if arguments.kimg else {})
    config = training_preset("demo").replace(**overrides)
    dataset = open_dataset("shapes3d", resolution=32)
    torch.manual_seed(config.seed)
    networks = network_preset("demo", dataset.resolution, dataset.num_channels)
    state = TrainingState.create(
        config,
        Generator(networks.generator),
        Discriminator(networks.discriminator),
        Recognizer(networks.recognizer),
    )
    run_dir = create_run_dir(arguments.outdir, "shapes3d32-demo")
    print(f"training on {config.total_kimg:g} thousand images; snapshots and pictures go to {run_dir}")
    start = time.perf_counter()
    network = train(state, dataset, run_dir, {"data": "shapes3d", "resolution": dataset.resolution})
    page = write_page(arguments.outdir, run_dir, network, state, time.perf_counter() - start)
    print(f"\nlook at {page}")


def write_page(outdir: Path, run_dir: Path, network: Path, state: TrainingState, seconds: float) -> Path:
    """Sweep every code of the averaged generator and write the page around the pictures."""
    sweeps = []
    for seed in SWEPT_SEEDS:
        torch.manual_seed(seed)
        base = torch.rand(state.G_ema.num_codes) * 4 - 2
        sweep = sweep_codes(state.G_ema, base, points=9)
        save_png(sweep.picture(), outdir / f"traverse{seed}.png")
        save_gif(sweep.frames(), outdir / f"traverse{seed}.gif")
        sweeps.append(SWEEP.substitute(seed=seed))
    fields = {
        "resolution": state.G.img_resolution,
        "kimg": f"{state.images_seen / 1000:.0f}",
        "minutes": f"{seconds / 60:.1f}",
        "speed": f"{state.images_seen / seconds:.0f}",
        "codes": state.G.num_codes,
        "run": run_dir.name,
        "fakes": sorted(run_dir.glob("fakes*.png"))[-1].name,
        "network": html.escape(str(network)),
    }
    page = outdir / "index.html"
    page.write_text(PAGE.substitute(fields, sweeps="".join(sweeps)))
    return page


if __name__ == "__main__":
    main()
