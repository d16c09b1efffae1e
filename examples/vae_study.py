"""How well does TPL rank models without labels? A small Table 1 on rendered dSprites.

Trains a herd of VAEs that differ in method, strength and seed, measures TPL and the supervised metrics of each, and
prints Spearman's rank correlations, with the interval of other herds drawn from this one, and what one gains who takes
the seed that TPL chooses. Results are appended to OUTDIR/models.jsonl as they come, and models that are there already
are not trained again, so the study goes on where it stopped:

    python examples/vae_study.py --outdir runs/vae_study

A model takes a minute and a half on one core (FactorVAE two), the 72 of the study about two hours; two processes may
share an OUTDIR, each with its own --methods and OMP_NUM_THREADS=1. Shorter training is quicker and says little: after a
tenth of the images the models are entangled alike, and no score tells them apart.

The six losses are written out here: no well-kept library has them all (disent lacks FactorVAE and AnnealedVAE, pythae
lacks DIP-VAE).
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sc_layers.data.rendered.dsprites import DSprites
from sc_layers.metrics.disentanglement.factors import encode
from sc_layers.metrics.disentanglement.information import mig
from sc_layers.metrics.disentanglement.intervention import beta_vae, factor_vae
from sc_layers.metrics.disentanglement.predictive import dci
from sc_layers.metrics.disentanglement.unsupervised import udr_from_codes
from sc_layers.metrics.distances import make_distance
from sc_layers.metrics.ranking import Candidate, correlation_table
from sc_layers.metrics.score import Score
from sc_layers.metrics.traversal_length import tpl_preset, traversal_perceptual_length

RESOLUTION = 32
NUM_CODES = 8
COLUMNS = ("BVM", "DCI", "FVM", "MIG")


class CoarseSprites:
    """dSprites with every eighth orientation and every fourth position: few enough values for quick DCI and MIG."""

    factor_sizes = (3, 6, 5, 8, 8)
    strides = np.array([1, 1, 8, 4, 4])

    def __init__(self, sprites: DSprites) -> None:
        self.sprites = sprites

    def images(self, factors: np.ndarray) -> Tensor:
        return self.sprites.images(factors * self.strides)


class VAE(nn.Module):
    """Small convolutional VAE with a Gaussian code; its decoder gives logits of the pixels.

    Shapes:
        encode: images [N, 1, 32, 32] in 0..1 -> mean and log variance, each [N, K]. decode: codes [N, K] -> logits.
    """

    def __init__(self, num_codes: int = NUM_CODES) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, 16, 4, 2, 1), nn.SiLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.SiLU()),
            *(nn.Conv2d(32, 32, 4, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(512, 128), nn.SiLU()),
            nn.Linear(128, 2 * num_codes),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(num_codes, 128), nn.SiLU(), nn.Linear(128, 512), nn.SiLU(), nn.Unflatten(1, (32, 4, 4))),
            *(nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.SiLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.SiLU()),
            nn.ConvTranspose2d(16, 1, 4, 2, 1),
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.encoder(images).chunk(2, dim=1)
        return mean, log_var

    def decode(self, codes: Tensor) -> Tensor:
        logits: Tensor = self.decoder(codes)
        return logits

    def represent(self, images: Tensor) -> Tensor:
        """The mean codes of images in -1..1, as the metrics want them."""
        return self.encode((images + 1) / 2)[0]

    def generate(self, codes: Tensor) -> Tensor:
        """Images in -1..1."""
        return self.decode(codes).sigmoid() * 2 - 1


@dataclass
class Batch:
    """What a regulariser may look at."""

    mean: Tensor
    log_var: Tensor
    codes: Tensor
    progress: float  # 0..1 of the training

    @property
    def kl(self) -> Tensor:
        """Mean over the batch of KL(q(z|x) || N(0, 1))."""
        return 0.5 * (self.mean**2 + self.log_var.exp() - 1 - self.log_var).sum(1).mean()


Regularizer = Callable[[Batch], Tensor]


def beta_loss(beta: float) -> Regularizer:
    """beta-VAE: beta KL."""
    return lambda batch: beta * batch.kl


def annealed_loss(capacity: float, weight: float = 2.0) -> Regularizer:
    """AnnealedVAE: weight |KL - C|, where C grows from 0 to `capacity`.

    Where KL stays above C, this is the loss of a beta-VAE with beta = `weight`, so `capacity` has to be above the KL of
    that one (8 nats here). A weight of 20 holds KL at C from the start, and then only three codes ever become active.
    """
    return lambda batch: weight * (batch.kl - capacity * batch.progress).abs()


def total_correlation(batch: Batch) -> Tensor:
    """beta-TCVAE's estimate of KL(q(z) || prod q(z_k)), where q(z) is the mean over the minibatch of q(z|x)."""
    z, mean, log_var = batch.codes[:, None], batch.mean[None], batch.log_var[None]
    log_density = -0.5 * ((z - mean) ** 2 / log_var.exp() + log_var + np.log(2 * np.pi))  # [B, B, K]
    log_size = np.log(len(batch.codes))
    joint = log_density.sum(2).logsumexp(1) - log_size
    product = (log_density.logsumexp(1) - log_size).sum(1)
    return (joint - product).mean()


def tc_loss(beta: float) -> Regularizer:
    """beta-TCVAE: KL + (beta - 1) TC."""
    return lambda batch: batch.kl + (beta - 1) * total_correlation(batch)


def dip_loss(weight: float, second: bool) -> Regularizer:
    """DIP-VAE: KL + weight (off-diagonal)^2 + own weight (diagonal - 1)^2 of the covariance of means (I) or codes."""
    diagonal_weight = weight if second else 10 * weight

    def loss(batch: Batch) -> Tensor:
        centred = batch.mean - batch.mean.mean(0)
        covariance = centred.T @ centred / len(centred)
        if second:
            covariance = covariance + batch.log_var.exp().mean(0).diag()
        diagonal = covariance.diagonal()
        off = covariance.square().sum() - diagonal.square().sum()
        return batch.kl + weight * off + diagonal_weight * (diagonal - 1).square().sum()

    return loss


class FactorVAELoss:
    """FactorVAE: KL + gamma TC, estimated by a discriminator between codes and codes shuffled column by column."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        layers = [layer for n in (NUM_CODES, 128, 128) for layer in (nn.Linear(n, 128), nn.LeakyReLU(0.2))]
        self.discriminator = nn.Sequential(*layers, nn.Linear(128, 1))
        self.optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=1e-4, betas=(0.5, 0.9))

    def __call__(self, batch: Batch) -> Tensor:
        self._train(batch.codes.detach())
        self.discriminator.requires_grad_(False)
        loss = batch.kl + self.gamma * self.discriminator(batch.codes).mean()
        self.discriminator.requires_grad_(True)
        return loss

    def _train(self, codes: Tensor) -> None:
        shuffled = torch.stack([column[torch.randperm(len(codes))] for column in codes.T], dim=1)
        loss = F.softplus(-self.discriminator(codes)).mean() + F.softplus(self.discriminator(shuffled)).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


METHODS: dict[str, tuple[Callable[[float], Regularizer], tuple[float, ...]]] = {
    "beta_vae": (beta_loss, (0.5, 1, 2)),
    "annealed_vae": (annealed_loss, (10, 14, 18)),
    "factor_vae": (FactorVAELoss, (2, 6, 12)),
    "beta_tcvae": (tc_loss, (1.5, 2.5, 4)),
    "dip_vae_i": (lambda weight: dip_loss(weight, second=False), (1, 5, 20)),
    "dip_vae_ii": (lambda weight: dip_loss(weight, second=True), (1, 5, 20)),
}


def train(
    regularizer: Regularizer, sprites: DSprites, num_images: int, batch_size: int, seed: int
) -> tuple[VAE, float]:
    """Train one VAE; returns it with its last reconstruction error."""
    model = VAE()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    draws = torch.Generator().manual_seed(seed)
    steps = max(1, num_images // batch_size)
    for step in range(steps):
        images = sprites.sample(batch_size, draws).float() / 255
        mean, log_var = model.encode(images)
        codes = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        logits = model.decode(codes)
        reconstruction = F.binary_cross_entropy_with_logits(logits, images, reduction="sum") / batch_size
        loss = reconstruction + regularizer(Batch(mean, log_var, codes, step / steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval(), reconstruction.item()


def measure(model: VAE, data: CoarseSprites, distance: Any, threshold: float, effort: float) -> dict[str, Any]:
    """TPL and the four supervised metrics, with `effort` times the samples."""

    def some(num: int) -> int:
        return max(20, round(num * effort))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # models with one active code are expected here
        warnings.simplefilter("ignore", UserWarning)  # the linear classifier of BVM stops after its usual iterations
        tpl = traversal_perceptual_length(
            *(model.generate, model.num_codes),
            tpl_preset("tpl_dsprites", num_points=24, num_traversals=max(1, round(6 * effort)), threshold=threshold),
            distance=distance,
        )
        votes = {"num_train": some(400), "num_eval": some(300)}
        scores: dict[str, Score] = {
            "BVM": beta_vae(model.represent, data, **votes),
            "DCI": dci(model.represent, data, num_train=some(400), num_test=some(200)),
            "FVM": factor_vae(model.represent, data, vote_size=32, num_variance=some(2000), **votes),
            "MIG": mig(model.represent, data, num_samples=some(3000)),
        }
    return {
        "tpl": tpl.total,
        "interval": list(tpl.interval),
        "per_dim": tpl.per_dim.tolist(),
        "num_active": tpl.num_active,
        "scores": {name: score.score for name, score in scores.items()},
    }


@torch.inference_mode()
def representation(model: VAE, sprites: DSprites) -> tuple[np.ndarray, np.ndarray]:
    """Codes of 500 fixed images [500, K] and the mean divergence of each code from the prior [K], for UDR."""
    factors = np.random.RandomState(0).randint(sprites.factor_sizes, size=(500, len(sprites.factor_sizes)))
    codes = encode(lambda images: torch.cat(model.encode((images + 1) / 2), 1), sprites.images, factors)
    mean, log_var = np.split(codes, 2, axis=1)
    return mean, 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).mean(0)


def herd(methods: list[str], seeds: int) -> Iterator[tuple[str, float, int]]:
    """Every method, strength and seed, one seed after the other."""
    for seed in range(seeds):
        for strength in range(3):
            for method in methods:
                yield method, METHODS[method][1][strength], seed


def load_lines(path: Path) -> dict[str, dict[str, Any]]:
    """Results of earlier runs by name."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return {entry["name"]: entry for entry in map(json.loads, lines)}


def groups_of_seeds(results: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The models of each method and strength, where there are two or more."""
    groups: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for entry in results:
        groups.setdefault((entry["method"], entry["strength"]), []).append(entry)
    return [fellows for fellows in groups.values() if len(fellows) > 1]


def add_udr(results: list[dict[str, Any]], outdir: Path) -> None:
    """Put each model's UDR among the models of its method and strength into its scores, where there are two or more."""
    for fellows in groups_of_seeds(results):
        stored = [np.load(outdir / f"{entry['name']}.npz") for entry in fellows]
        scores = udr_from_codes(np.stack([s["codes"] for s in stored]), np.stack([s["kl"] for s in stored]))[0]
        for entry, score in zip(fellows, scores.tolist(), strict=True):
            entry["scores"]["UDR"] = score


def gain_by_choice(results: list[dict[str, Any]], column: str) -> tuple[float, float, float] | None:
    """How much better the seed that TPL chooses is than the mean of its setting's seeds, and the 95 % interval.

    Settings are drawn anew for the interval (a bootstrap); None where no setting has two seeds.
    """
    gains = []
    for fellows in groups_of_seeds(results):
        chosen = min(fellows, key=lambda entry: entry["tpl"])
        gains.append(chosen["scores"][column] - np.mean([entry["scores"][column] for entry in fellows]))
    if not gains:
        return None
    means = np.random.default_rng(0).choice(np.sort(gains), (2000, len(gains))).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(np.mean(gains)), float(low), float(high)


def report(results: list[dict[str, Any]], outdir: Path) -> str:
    """The correlation table, which is kept, and what choosing seeds by TPL gains."""
    add_udr(results, outdir)
    candidates = [Candidate(r["name"], r["tpl"], r["num_active"], tuple(r["interval"]), r["scores"]) for r in results]
    others = ("UDR", "FVM") if all("UDR" in r["scores"] for r in results) else ("FVM",)
    table = correlation_table(candidates, COLUMNS, (1, 3, 4, 5), others)
    (outdir / "correlations.json").write_text(json.dumps(table.to_dict(), indent=2) + "\n")
    lines = [table.table()]
    for column in COLUMNS:
        gain = gain_by_choice(results, column)
        if gain is not None:
            lines.append(f"chosen seed minus mean of seeds: {column} {gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]")
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], path: Path, min_active: int) -> None:
    """DCI of the models ranked by TPL (Fig. 4), a colour a method."""
    from matplotlib.figure import Figure

    ranked = sorted((r for r in results if r["num_active"] >= min_active), key=lambda r: r["tpl"])
    figure = Figure(figsize=(6, 3.5))
    axes = figure.add_subplot()
    for method in METHODS:
        points = [(rank, r["scores"]["DCI"]) for rank, r in enumerate(ranked, 1) if r["method"] == method]
        if points:
            axes.scatter(*zip(*points, strict=True), label=method, s=18)
    axes.set(xlabel=f"rank by TPL (act>{min_active - 1})", ylabel="DCI disentanglement")
    if ranked:
        axes.legend(fontsize=7)
    figure.savefig(path, dpi=120, bbox_inches="tight")


@click.command()
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), default=Path("runs/vae_study"))
@click.option("--methods", default=",".join(METHODS), help="Comma-separated.")
@click.option("--seeds", default=4, help="Models of each method and strength.")
@click.option("--images", default=400_000, help="Training images a model.")
@click.option("--batch", default=64, help="Images a step.")
@click.option("--distance", default="efficientnet", help="Distance of TPL; the default needs no internet.")
@click.option("--threshold", default=0.25, help="S of Eq. 12 in that distance's units.")
@click.option("--effort", default=2.0, help="Factor on the number of samples of every metric.")
@click.option("--threads", default=1, help="CPU threads.")
def main(
    outdir: Path,
    methods: str,
    seeds: int,
    images: int,
    batch: int,
    distance: str,
    threshold: float,
    effort: float,
    threads: int,
) -> None:
    """Train the herd, measure it, print the correlation table."""
    unknown = [name for name in methods.split(",") if name not in METHODS]
    if unknown:
        raise click.UsageError(f"unknown method {unknown[0]!r}; methods: {', '.join(METHODS)}")
    torch.set_num_threads(threads)
    outdir.mkdir(parents=True, exist_ok=True)
    sprites, measured = DSprites(RESOLUTION), make_distance(distance)
    done = load_lines(outdir / "models.jsonl")
    for method, strength, seed in herd(methods.split(","), seeds):
        name = f"{method}-{strength:g}-{seed}"
        if name in done:
            continue
        start = time.perf_counter()
        torch.manual_seed(seed)
        model, error = train(METHODS[method][0](strength), sprites, images, batch, seed)
        trained = time.perf_counter() - start
        codes, kl = representation(model, sprites)
        np.savez(outdir / f"{name}.npz", codes=codes, kl=kl)
        entry = {"name": name, "method": method, "strength": strength, "seed": seed, "reconstruction": error}
        entry |= measure(model, CoarseSprites(sprites), measured, threshold, effort)
        done[name] = entry
        with (outdir / "models.jsonl").open("a") as file:
            file.write(json.dumps(entry) + "\n")
        scores = "  ".join(f"{key} {value:.3f}" for key, value in entry["scores"].items())
        total = time.perf_counter() - start
        click.echo(
            f"{name:<20} error {error:6.1f}  TPL {entry['tpl']:7.3f}  active {entry['num_active']}  {scores}"
            f"  ({trained:.0f} s training, {total - trained:.0f} s metrics)"
        )
    results = list(done.values())
    click.echo(report(results, outdir))
    plot(results, outdir / "tpl_dci.png", min_active=5)


if __name__ == "__main__":
    main()
