"""PIPE: how alike the images of codes that an encoder gives are to images of codes that are drawn one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ..features import ImageData
from ..generators import GeneratorFunction, device_of, fixed_noise
from ..score import Ints, Score, shortfall
from .factors import Encoder, encode

STANDARD_SAMPLES = 50_000
_BATCH = 32  # images a step of the judge
_LEARNING_RATE = 1e-4
_FINAL_SIZE = 4


def _judge(channels: int, resolution: int) -> nn.Sequential:
    """A network that tells two kinds of images apart, at 64 pixels the authors': images -> logits [B, 1, 1, 1]."""
    layers: list[nn.Module] = []
    width, size = channels, resolution
    while size > _FINAL_SIZE:
        after = 32 if len(layers) < 6 else 64  # three modules a stage
        layers += [nn.Conv2d(width, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
        width, size = after, size // 2
    layers += [nn.Conv2d(width, 512, size), nn.BatchNorm2d(512), nn.ReLU(), nn.Conv2d(512, 1, 1)]
    return nn.Sequential(*layers)


def _learn(judge: nn.Module, images: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Let `judge` learn in one pass which images [B, C, H, W] are of the second kind, 1 in kinds [B]."""
    optimizer = torch.optim.Adam(judge.parameters(), lr=_LEARNING_RATE)
    judge.train()
    for batch, kinds in images:
        loss = nn.functional.binary_cross_entropy_with_logits(judge(batch).flatten(), kinds)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@torch.no_grad()
def _accuracy(judge: nn.Module, images: Iterable[tuple[Tensor, Tensor]]) -> float:
    """The share of images whose kind `judge` tells."""
    judge.eval()
    right = torch.cat([(judge(batch).flatten() > 0) == (kinds > 0) for batch, kinds in images])
    return float(right.float().mean())


def pipe(
    generator: GeneratorFunction,
    encoder: Encoder,
    data: ImageData,
    *,
    num_samples: int = STANDARD_SAMPLES,
    seed: int = 0,
    batch_size: int = 64,
    device: torch.device | str | None = None,
) -> Score:
    """Posterior Indifference Projection Equivalence: can one tell reconstructions from images of unrelated codes?

    If codes are independent of each other and images follow them, codes that are drawn one by one, each uniformly over
    its range, give images as the data has them. A small network learns to tell these from reconstructed images of the
    data, from half of both kinds in one pass; the score is twice the share of the other half that it takes wrongly.

    Range: 0 to 1. Better: higher. Weaknesses: a necessary condition, not a sufficient one: a generator that ignores its
    codes has 1. Codes whose true distribution is not uniform, and images that the recogniser can't read, cost points.
    It depends on the number of images that the network learns from.

    Args:
        generator: images [B, C, H, W], about in -1..1, from codes [B, K]; it holds its noise fixed.
        encoder: maps such images to codes [B, K].
        data: real images, of `images_at(indices)`.
        num_samples: images of each kind.
        seed: integer that fixes which images and codes are drawn and how the network starts.
        batch_size: images a pass through encoder and generator; the network always learns from 32 a step.
        device: where both are; None takes the place of the encoder's parameters.

    Returns:
        score; details: `accuracy` of the network on the other half.

    Raises:
        ValueError: fewer than two images of each kind.

    Source: Estermann and Wattenhofer, DAVA (2023), and its authors' program, with uniform codes.
    """
    if num_samples < 2:
        raise ValueError(f"num_samples must be at least 2, got {num_samples}")
    device = device_of(encoder) if device is None else torch.device(device)
    rng = np.random.RandomState(seed)
    codes = encode(encoder, data.images_at, rng.randint(len(data), size=num_samples), batch_size, device)
    others = rng.uniform(codes.min(axis=0), codes.max(axis=0), size=codes.shape)
    of_both = torch.from_numpy(np.concatenate([codes, others])).float()
    kinds = torch.arange(2).repeat_interleave(num_samples).float()
    learnt, held_out = np.split(rng.permutation(num_samples), [num_samples // 2])  # as many images of either kind

    def images(half: Ints, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        rows = torch.from_numpy(rng.permutation(np.concatenate([half, half + num_samples])))
        for part in rows.split(size):
            with torch.no_grad():
                batch = fixed(of_both[part].to(device))
            yield batch, kinds[part].to(device)

    with fixed_noise(generator) as fixed, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        _, *shape = fixed(of_both[:1].to(device)).shape
        judge = _judge(shape[0], shape[-1]).to(device)
        _learn(judge, images(learnt, _BATCH))
        accuracy = _accuracy(judge, images(held_out, batch_size))
    note = shortfall(num_samples, STANDARD_SAMPLES, "images")
    return Score("pipe", min(1.0, 2 * (1 - accuracy)), {"accuracy": accuracy}, note)
