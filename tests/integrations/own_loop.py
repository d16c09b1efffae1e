"""A training loop of one's own around a code base's networks and loss, by the recipe of integrations/stylegan2_ada.

    python own_loop.py CODE_BASE DIRECTORY OUTDIR [SNAPSHOT]

CODE_BASE is stylegan2-ada or stylegan3, DIRECTORY an unpatched checkout of it or of a fork. 50 steps, from SNAPSHOT on
where one is given; prints the reading errors of the first and the last ten, and leaves a snapshot and a sheet of the
codes in OUTDIR.
"""

from __future__ import annotations

import copy
import importlib
import pickle
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from sc_layers.integrations.nvlabs import Training

STEPS = 50
BATCH = 4
SIZE = {"c_dim": 0, "img_resolution": 32, "img_channels": 3}
WIDTH = {"channel_base": 512, "channel_max": 16}
CPU = torch.device("cpu")


def make_networks(code_base: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    if code_base == "stylegan2-ada":
        networks = importlib.import_module("training.networks")
        G = networks.Generator(z_dim=32, w_dim=32, **SIZE, synthesis_kwargs=WIDTH)
    else:
        networks = importlib.import_module("training.networks_stylegan2")
        G = networks.Generator(z_dim=32, w_dim=32, **SIZE, **WIDTH)
    return G, networks.Discriminator(**SIZE, **WIDTH)


def make_loss(code_base: str, G: Any, D: Any) -> tuple[Any, dict[str, Any]]:
    """The loss, and what a call needs besides the images and latents."""
    loss = importlib.import_module("training.loss").StyleGAN2Loss
    if code_base == "stylegan2-ada":
        return loss(CPU, G.mapping, G.synthesis, D), {"sync": True, "gain": 1}
    return loss(CPU, G, D), {"gain": 1, "cur_nimg": 0}


def main(code_base: str, outdir: Path, snapshot: Path | None) -> None:
    torch.manual_seed(0)
    reports: dict[str, list[float]] = defaultdict(list)
    G, D = make_networks(code_base)
    sc = Training(G, CPU, num_gpus=1, rank=0, sc_codes=6, sc_res=[8, 16])
    G_ema = copy.deepcopy(G).eval()
    images_seen = 0
    if snapshot is not None:
        loaded = pickle.loads(snapshot.read_bytes())
        images_seen = loaded["images_seen"]
        sc.resume(loaded)
        for name, network in (("G", G), ("D", D), ("G_ema", G_ema)):
            network.load_state_dict(loaded[name].state_dict())
    sc.distribute(wrap=False)
    loss, options = make_loss(code_base, G, D)
    loss = sc.wrap_loss(loss, lambda name, values: reports[name].append(float(torch.as_tensor(values).mean())))
    phases = [
        SimpleNamespace(name=name, module=network, opt=torch.optim.Adam(network.parameters(), 0.002, (0.0, 0.99)))
        for name, network in (("Gmain", G), ("Dmain", D))
    ]
    sc.join(phases)
    for _ in range(STEPS):
        reals = torch.zeros(BATCH, 3, 32, 32)
        reals[:, :, 4:20, 8:16] = torch.rand(BATCH, 3, 1, 1) * 2 - 1
        labels = torch.zeros(BATCH, 0)
        for phase in phases:
            phase.opt.zero_grad(set_to_none=True)
            phase.module.requires_grad_(True)
            z = torch.randn(BATCH, G.z_dim)
            loss.accumulate_gradients(phase=phase.name, real_img=reals, real_c=labels, gen_z=z, gen_c=labels, **options)
            phase.module.requires_grad_(False)
            phase.opt.step()
        with torch.no_grad():
            for average, parameter in zip(G_ema.parameters(), G.parameters(), strict=True):
                average.lerp_(parameter, 0.1)
        images_seen += BATCH
    saved = {"G": G, "D": D, "G_ema": G_ema, "images_seen": images_seen}
    saved.update(sc.snapshot(G_ema, str(outdir), images_seen))
    (outdir / f"snapshot-{images_seen}.pkl").write_bytes(pickle.dumps(saved))
    errors = [sum(values) / 6 for values in zip(*(reports[f"SC/error/{code:02d}"] for code in range(6)), strict=True)]
    print(f"{sum(errors[:10]) / 10:.3f} {sum(errors[-10:]) / 10:.3f}")


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[2])
    main(sys.argv[1], Path(sys.argv[3]), Path(sys.argv[4]) if len(sys.argv) > 4 else None)
