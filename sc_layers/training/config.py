"""Settings of a training, and the presets that go with the networks' presets."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..models.latents import check_latents
from ..regularizers import REGULARIZERS
from .augment import AUGMENTATIONS
from .precision import PRECISIONS
from .unlocking import FIRST_LEVELS

MODELS = ("ps_sc", "info_gan", "ib_gan", "gan")


@dataclass(frozen=True)
class TrainingConfig:
    """How to train; the defaults are the authors' (SPEC, losses and training).

    Attributes:
        model: "ps_sc" (perceptual simplicity loss), "info_gan" (code regression on single images), "ib_gan" (codes are
            a bottleneck between a random input and the images, from which it is read) or "gan" (no recogniser).
        latents: "uniform" in (-2, 2) or "normal".
        total_kimg: length of the training in thousands of real images.
        batch: images an update.
        batch_per_pass: images that go through the networks at a time; gradients accumulate over
            `batch / batch_per_pass` passes.
        learning_rate: before the correction for lazy regularisation.
        adam_beta2: second-moment decay of Adam, whose beta1 is 0.
        adam_eps: what Adam adds to the root of the second moment.
        g_reg_interval: enters the correction of the generator's and recogniser's Adam, as in the authors' program,
            although the generator has no regulariser.
        d_reg_interval: R1 runs every so many updates, the first included.
        r1_gamma: weight of R1.
        code_weight: lambda, weight of the loss on recognised codes.
        perturbation: eps of the perceptual simplicity loss.
        random_perturbation: draw the perturbation as `eps * N(0, std 2)` instead of taking it as it is.
        cascade_kimg: None, or perturb one code after the other, for so many thousand images each.
        unlock_kimg: codes join one level after the other, so many thousand images apart, see `unlocking.shares`; 0 for
            all from the start.
        unlock_first: the level of codes that then begins, "finest" or "coarsest".
        overlap_weight: weight of `losses.mask_overlap`, which holds the masks of the finest level apart. Coarser levels
            have to share places: what stretches an object acts where that does which turns it.
        reader_noise: standard deviation of the noise that is added to images in [-1, 1] before the recogniser reads
            them, so that it reads nothing that cannot be seen.
        code_norm: order of the norm in the InfoGAN loss, or "mse".
        bottleneck_weight: beta, weight of the divergence of IB-GAN's codes from N(0, 1); "ib_gan" alone has it.
        regularizer: what the generator's codes are held to besides, see `regularizers`: "none", "hessian", "orojar",
            "infogan_cr" or "vp". The last two train a recogniser of pairs; "vp" moves codes by `perturbation`.
        regularizer_weight: its weight. It looks at the images alone; the maximum that "hessian" and "orojar" take is
            that of each pass.
        ema_kimg: half-life of the averaged networks in thousands of images.
        ema_rampup: None, or the largest half-life as a fraction of the images seen (never under 200 images).
        average_recognizer: keep an averaged recogniser besides the averaged generator, which metrics then take.
        mirror: flip half of the real images.
        augment: what the discriminator sees is augmented: "none", "ada" (as much as it overfits) or "fixed".
        augment_probability: with which each change acts at the start, or always for "fixed".
        augment_target: share by which real images are told from 0 on average that "ada" keeps to.
        augment_kimg: thousands of images in which "ada" can go from probability 0 to 1.
        freeze_d: so many of the discriminator's blocks, from the image on, keep their weights: for fine-tuning.
        channels_last: keep features in channels_last memory format.
        cuda_graphs: record the passes through the networks as CUDA graphs where a card trains and `obstacle` is None.
        precision: what convolutions compute in, "fp32", "tf32", "bf16" or "fp16"; statistics, gates, losses, R1,
            averages and parameters are float32. "tf32", PyTorch's own default, is float32 where there is no such card.
        tick_kimg: thousands of images between two lines of statistics.
        snapshot_kimg: thousands of images between two snapshots.
        checkpoint_minutes: minutes after which the training can go on from where it stands, between snapshots too.
        seed: decides how the networks start, which codes are drawn and the order of the data.
    """

    model: str = "ps_sc"
    latents: str = "uniform"
    total_kimg: float = 25000
    batch: int = 32
    batch_per_pass: int = 16
    learning_rate: float = 0.002
    adam_beta2: float = 0.99
    adam_eps: float = 1e-8
    g_reg_interval: int = 4
    d_reg_interval: int = 16
    r1_gamma: float = 100.0
    code_weight: float = 1.0
    perturbation: float = 0.4
    random_perturbation: bool = True
    cascade_kimg: float | None = None
    unlock_kimg: float = 0.0
    unlock_first: str = "finest"
    overlap_weight: float = 0.0
    reader_noise: float = 0.0
    code_norm: float | str = 2
    bottleneck_weight: float = 0.141
    regularizer: str = "none"
    regularizer_weight: float = 0.1
    ema_kimg: float = 10
    ema_rampup: float | None = None
    average_recognizer: bool = False
    mirror: bool = False
    augment: str = "none"
    augment_probability: float = 0.0
    augment_target: float = 0.6
    augment_kimg: float = 500
    freeze_d: int = 0
    channels_last: bool = True
    cuda_graphs: bool = True
    precision: str = "tf32"
    tick_kimg: float = 4
    snapshot_kimg: float = 100
    checkpoint_minutes: float = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")
        check_latents(self.latents)
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        if self.regularizer not in REGULARIZERS:
            raise ValueError(f"regularizer must be one of {', '.join(REGULARIZERS)}, got {self.regularizer!r}")
        if self.model == "ib_gan" and (self.latents != "normal" or self.regularizer != "none"):
            raise ValueError(
                "model 'ib_gan' has normal latents and no regularizer, "
                f"got {self.latents!r} latents and regularizer {self.regularizer!r}"
            )
        if self.unlock_first not in FIRST_LEVELS:
            raise ValueError(f"unlock_first must be one of {', '.join(FIRST_LEVELS)}, got {self.unlock_first!r}")
        if self.augment not in AUGMENTATIONS:
            raise ValueError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {self.augment!r}")
        for name in ("augment_probability", "augment_target"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        for name in ("freeze_d", "unlock_kimg", "overlap_weight", "reader_noise"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.unlock_kimg and self.cascade_kimg is not None:
            raise ValueError(
                f"cascade_kimg {self.cascade_kimg} and unlock_kimg {self.unlock_kimg} exclude each other: "
                "both say which codes are perturbed"
            )
        for name in (
            "augment_kimg",
            "total_kimg",
            "batch",
            "batch_per_pass",
            "learning_rate",
            "ema_kimg",
            "tick_kimg",
            "snapshot_kimg",
            "checkpoint_minutes",
        ):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name != "code_norm" and isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{field.name} must be a finite number, got {value}")
        for name in ("g_reg_interval", "d_reg_interval"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch % self.batch_per_pass:
            raise ValueError(f"batch {self.batch} is no multiple of batch_per_pass {self.batch_per_pass}")

    @property
    def passes(self) -> int:
        """Passes through the networks that make up one update."""
        return self.batch // self.batch_per_pass

    def ema_beta(self, images_seen: int) -> float:
        """Share of the old average that one update keeps after `images_seen` images: `0.5 ^ (batch / half-life)`.

        >>> TrainingConfig(batch=32, ema_kimg=0.032).ema_beta(0)
        0.5
        """
        half_life = self.ema_kimg * 1000
        if self.ema_rampup is not None:
            half_life = min(half_life, max(200.0, self.ema_rampup * images_seen))
        return float(0.5 ** (self.batch / half_life))

    def replace(self, **changes: Any) -> TrainingConfig:
        """The same settings with `changes`, by name, in place of theirs; checked as new ones are."""
        return dataclasses.replace(self, **changes)

    def shared(self, changes: Mapping[str, Any], processes: int) -> TrainingConfig:
        """The same settings with changes, for so many processes.

        Args:
            changes: settings by name. Where they leave `batch_per_pass` out, and passes of that size don't make up the
                batch of all processes, each process takes its share of a batch in one pass.
            processes: how many share a batch.

        >>> TrainingConfig(batch=32, batch_per_pass=16).shared({"batch": 12}, 2).batch_per_pass
        6
        """
        batch = changes.get("batch", self.batch)
        if "batch_per_pass" not in changes and batch % (self.batch_per_pass * processes) and batch % processes == 0:
            changes = {**changes, "batch_per_pass": batch // processes}
        return self.replace(**changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON knows them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """The settings whose `values` `to_dict` wrote.

        Raises:
            ValueError: one is unknown, or of a type or size that it can't have.
        """
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown settings of a training: {', '.join(sorted(map(str, unknown)))}")
        if values.get("unlock_kimg", 0) is None:  # as it was written before 0 turned it off
            values = {**values, "unlock_kimg": 0.0}
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"a setting of a training has a value of the wrong type: {error}") from error


# The command line of the authors' README for CelebA.
_CELEBA = TrainingConfig(latents="normal", batch=8, batch_per_pass=4, code_weight=0.01, perturbation=3.0, mirror=True)
# gamma 100 gives coloured static at 32 and 64 pixels, and lambda 0.02 leaves codes unused; found by trials.
_SMALL = TrainingConfig(
    total_kimg=1000, batch=16, r1_gamma=1.0, code_weight=0.1, ema_kimg=3, ema_rampup=0.1, snapshot_kimg=50
)

TRAINING_PRESETS = {
    "celeba": _CELEBA,
    "ffhq": _CELEBA,
    # One code for each factor; found by trials, see examples/README.md.
    "shapes3d": _SMALL.replace(
        total_kimg=200,
        learning_rate=0.005,
        code_weight=0.3,
        unlock_kimg=10,
        overlap_weight=0.25,
        reader_noise=1.0,
        average_recognizer=True,
    ),
    "dsprites": _SMALL.replace(
        total_kimg=120,
        learning_rate=0.005,
        code_weight=0.3,
        unlock_kimg=24,
        unlock_first="coarsest",
        reader_noise=0.5,
    ),
    "demo": _SMALL.replace(total_kimg=72, tick_kimg=1, snapshot_kimg=12),
}


def training_preset(name: str) -> TrainingConfig:
    """The training settings of the preset `name`.

    Raises:
        ValueError: there is no such preset; the message lists those that are.
    """
    if name not in TRAINING_PRESETS:
        raise ValueError(f"unknown preset {name!r}; presets: {', '.join(TRAINING_PRESETS)}")
    return TRAINING_PRESETS[name]
