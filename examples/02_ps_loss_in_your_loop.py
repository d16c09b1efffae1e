"""Perceptual simplicity in a training loop of your own: a recogniser learns to read back which code was changed.

The networks are a few layers of plain PyTorch, on dSprites at 32 pixels; only the loss is ours. Prints how well the
recogniser reads the codes of new images: a squared error of 1 is guessing, 0 is perfect.
"""

from __future__ import annotations

import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sc_layers import PerceptualSimplicityLoss
from sc_layers.data import batches, open_dataset
from sc_layers.images import to_network_range

NUM_CODES, WIDTH, BATCH = 3, 16, 32


def generator() -> nn.Module:
    """Codes [N, K] -> images [N, 1, 32, 32]."""
    layers: list[nn.Module] = [nn.Linear(NUM_CODES, WIDTH * 16), nn.Unflatten(1, (WIDTH, 4, 4))]
    for _ in range(3):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, 1, 1), nn.Tanh())


def reader(outputs: int) -> nn.Module:
    """Images [N, 1, 32, 32] -> [N, outputs]."""
    layers: list[nn.Module] = []
    for index in range(3):
        layers += [nn.Conv2d(WIDTH if index else 1, WIDTH, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(WIDTH * 16, outputs))


@torch.no_grad()
def reading_error(G: nn.Module, Q: nn.Module) -> Tensor:
    """Mean squared error of the codes that Q reads from images of G, [K]."""
    codes = torch.randn(256, NUM_CODES)
    return F.mse_loss(Q(G(codes)), codes, reduction="none").mean(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    G, D, Q = generator(), reader(1), reader(NUM_CODES)
    # The recogniser's parameters go into the generator's optimiser: both lower one loss.
    g_optimizer = torch.optim.Adam([*G.parameters(), *Q.parameters()], lr=1e-3, betas=(0.5, 0.99))
    d_optimizer = torch.optim.Adam(D.parameters(), lr=1e-3, betas=(0.5, 0.99))
    perceptual_simplicity = PerceptualSimplicityLoss()
    images = batches(open_dataset("dsprites", 32), BATCH, seed=0)
    print("before:", [round(error, 2) for error in reading_error(G, Q).tolist()])
    for step in range(arguments.steps):
        codes = torch.randn(BATCH, NUM_CODES)
        # The loss makes the images of the codes and of their changed partners, and returns the images for your loss.
        loss, fakes = perceptual_simplicity(G, Q, codes)
        g_loss = F.softplus(-D(fakes)).mean() + loss.mean()
        g_optimizer.zero_grad()
        g_loss.backward()
        g_optimizer.step()
        reals = to_network_range(next(images))
        d_loss = F.softplus(D(fakes.detach())).mean() + F.softplus(-D(reals)).mean()
        d_optimizer.zero_grad()
        d_loss.backward()
        d_optimizer.step()
        if step % (arguments.steps // 5) == 0:
            print(f"step {step}: generator {g_loss:.2f}, discriminator {d_loss:.2f}, codes {loss.mean():.2f}")
    print("after:", [round(error, 2) for error in reading_error(G, Q).tolist()])


if __name__ == "__main__":
    main()
