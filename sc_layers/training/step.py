"""One step of the training (paper, Fig. 1; SPEC, losses and training): generator and recogniser, discriminator, R1."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..losses import (
    PairedLoss,
    PerceptualSimplicityLoss,
    code_regression_loss,
    discriminator_loss,
    generator_loss,
    information_bottleneck_loss,
    mask_overlap,
    r1_penalty,
)
from ..models import Discriminator, Generator, Recognizer, RecognizerConfig
from ..models.functional import MINIBATCH_STD_GROUP
from ..models.latents import draw_codes
from ..models.presets import NetworkPreset
from ..regularizers import PAIRED, PENALTIES, pair_loss, sharing_partners
from .augment import Augmentation
from .config import TrainingConfig
from .graphs import Graphs, obstacle
from .optimizer import Adam, average_into, lazy_adam
from .precision import check_precision, convolution_precision, half_precision, loss_scaler
from .processes import Processes
from .unlocking import shares

_Images = Callable[..., Tensor]

# Last entry but one of the seed of a pass: what its random numbers are for.
_GENERATOR, _DISCRIMINATOR, _R1 = 0, 1, 2


@dataclass
class TrainingState:
    """All that changes during a training.

    What counts skipped updates stays on the device, which nothing waits for. `Q` and `Q_ema` are None where the model
    has no recogniser, or no averaged one, `P` where no regulariser looks at pairs of images.
    """

    config: TrainingConfig
    G: Generator
    D: Discriminator
    Q: Recognizer | None
    G_ema: Generator
    Q_ema: Recognizer | None
    g_optimizer: Adam
    d_optimizer: Adam
    g_scaler: torch.amp.GradScaler
    d_scaler: torch.amp.GradScaler
    ps_loss: PerceptualSimplicityLoss
    skipped_updates: Tensor  # of G and D, 0-d
    skipped_in_a_row: Tensor  # steps with a skipped update, up to the last one, 0-d
    graphs: Graphs
    images_seen: int = 0
    updates: int = 0
    losses: dict[str, list[Tensor]] = field(default_factory=dict)  # since the last line of statistics
    processes: Processes = field(default_factory=Processes)
    augmentation: Augmentation = field(default_factory=Augmentation)
    P: Recognizer | None = None

    @classmethod
    def create(
        cls,
        config: TrainingConfig,
        G: Generator,
        D: Discriminator,
        Q: Recognizer | None,
        processes: Processes | None = None,
        P: Recognizer | None = None,
    ) -> TrainingState:
        """Start a training of these networks; the averages start as their copies.

        Args:
            config: the settings.
            G: generator.
            D: discriminator.
            Q: recogniser, or None for the model "gan".
            processes: those that share the training; None for this one alone.
            P: recogniser of pairs, where the regulariser has one; None makes one by the seed of the settings.

        Raises:
            ValueError: a recogniser is missing that the model needs, or given to one without; levels of codes are to
                join one after the other, and there is one; masks are to be held apart, and the finest level has none or
                one; a pass is of a size that the minibatch standard deviation of D or Q cannot group; or the passes of
                a batch cannot be shared among the processes.
        """
        processes = processes or Processes()
        if config.passes % processes.count:
            raise ValueError(
                f"batch {config.batch} goes through in {config.passes} passes of {config.batch_per_pass} images, which "
                f"{processes.count} processes cannot share: change the batch or batch_per_pass"
            )
        if (Q is None) != (config.model == "gan"):
            raise ValueError(f"model {config.model!r} needs {'no' if config.model == 'gan' else 'a'} recogniser")
        if Q is not None and (config.model == "ib_gan") != (Q.encoder is not None):
            raise ValueError(
                f"model {config.model!r} needs a recogniser with{'' if Q.encoder is None else 'out'} a z_dim"
            )
        if config.unlock_kimg and len(_levels(G)) < 2:
            raise ValueError("unlock_kimg needs a generator whose codes enter at several levels, got one: make it 0")
        if config.overlap_weight and _finest_masks(G) < 2:
            raise ValueError(
                "overlap_weight needs a generator whose finest level has two codes with masks or more, "
                f"got {_finest_masks(G)}: make it 0"
            )
        _check_pass(D, config.batch_per_pass)
        if Q is not None:
            _check_pass(Q, config.batch_per_pass * (2 if config.model == "ps_sc" else 1))
        device = next(G.parameters()).device
        device_type = device.type
        check_precision(config.precision, device_type)
        frozen = D.first_blocks(config.freeze_d)
        if config.regularizer not in PAIRED:
            P = None
        elif P is None:
            P = _recognizer_of_pairs(config.seed, D, G.num_codes).to(device)
        g_params = [parameter for network in (G, Q, P) if network is not None for parameter in network.parameters()]
        beta2, eps = config.adam_beta2, config.adam_eps
        averaged_q = Q if config.average_recognizer else None
        return cls(
            config=config,
            G=G,
            D=D,
            Q=Q,
            G_ema=copy.deepcopy(G).eval().requires_grad_(False),
            Q_ema=copy.deepcopy(averaged_q).eval().requires_grad_(False) if averaged_q is not None else None,
            g_optimizer=lazy_adam(g_params, config.learning_rate, beta2, eps, config.g_reg_interval),
            d_optimizer=lazy_adam(_without(D, frozen), config.learning_rate, beta2, eps, config.d_reg_interval),
            ps_loss=PerceptualSimplicityLoss(
                config.code_weight, config.perturbation, config.random_perturbation, config.cascade_kimg
            ),
            g_scaler=loss_scaler(config.precision, device_type),
            d_scaler=loss_scaler(config.precision, device_type),
            skipped_updates=torch.zeros((), device=device),
            skipped_in_a_row=torch.zeros((), device=device),
            graphs=Graphs(config.cuda_graphs and device_type == "cuda" and obstacle(config, processes) is None),
            processes=processes,
            P=P,
            augmentation=Augmentation(
                config.augment, config.augment_probability, config.augment_target, config.augment_kimg, device
            ),
        )

    @classmethod
    def start(
        cls,
        config: TrainingConfig,
        networks: NetworkPreset,
        device: torch.device | str = "cpu",
        processes: Processes | None = None,
    ) -> TrainingState:
        """Make networks by the seed of the settings, and start their training.

        Args:
            config: the settings; without a recogniser for the model "gan".
            networks: configurations, see `network_preset`.
            device: where to train.
            processes: those that share the training; None for this one alone.

        Raises:
            ValueError: see `create`.
        """
        torch.manual_seed(config.seed)
        G, D = Generator(networks.generator).to(device), Discriminator(networks.discriminator).to(device)
        Q = Recognizer(networks.recognizer).to(device) if config.model != "gan" else None
        return cls.create(config, G, D, Q, processes)

    @property
    def reader(self) -> Recognizer | None:
        """The recogniser to read codes with: the averaged one where there is one; None without any."""
        return self.Q if self.Q_ema is None else self.Q_ema

    @property
    def z_dim(self) -> int:
        """How many random numbers an image is made from."""
        return self.G.num_codes if self.Q is None or self.Q.config.z_dim is None else self.Q.config.z_dim

    @property
    def passes(self) -> range:
        """Which passes of a batch go through this process."""
        count = self.config.passes // self.processes.count
        return range(self.processes.rank * count, (self.processes.rank + 1) * count)


def _recognizer_of_pairs(seed: int, D: Discriminator, num_codes: int) -> Recognizer:
    """As wide as the discriminator; it sees the channels of two images, and nothing of other pairs."""
    shape = {part.name: getattr(D.config, part.name) for part in dataclasses.fields(D.config)}
    shape |= {"num_channels": 2 * D.config.num_channels, "minibatch_std": False, "num_codes": num_codes}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Recognizer(RecognizerConfig(**shape))


def _check_pass(network: Discriminator | Recognizer, images: int) -> None:
    if network.config.minibatch_std and images > MINIBATCH_STD_GROUP and images % MINIBATCH_STD_GROUP:
        raise ValueError(
            f"{type(network).__name__} would see {images} images a pass: its minibatch standard deviation needs "
            f"at most {MINIBATCH_STD_GROUP} or a multiple of {MINIBATCH_STD_GROUP}; change the batch or batch_per_pass"
        )


def _without(module: nn.Module, frozen: Iterable[nn.Module]) -> list[nn.Parameter]:
    """The parameters of `module` that are not those of `frozen`, which get no gradients any more."""
    kept = {id(parameter) for part in frozen for parameter in part.requires_grad_(False).parameters()}
    return [parameter for parameter in module.parameters() if id(parameter) not in kept]


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No gradients for the parameters of `module`, while they still flow through it."""
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    module.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def _codes(state: TrainingState, z: Tensor) -> Tensor:
    """The codes [N, K] of random numbers z [N, Z]: these themselves, but for IB-GAN."""
    return z if state.Q is None or state.Q.encoder is None else state.Q.encoder(z).sample()


def _unlocked(state: TrainingState) -> tuple[Tensor, ...]:
    """How much of its range each code has by now, [K], where codes join one after the other; otherwise nothing."""
    if not state.config.unlock_kimg:
        return ()
    levels, device = _levels(state.G), state.skipped_updates.device
    values = shares(len(levels), state.images_seen, state.config.unlock_kimg, state.config.unlock_first)
    # Filled level by level, since a copy of them all would wait for a card.
    filled = [torch.full((count,), value, device=device) for count, value in zip(levels, values, strict=True)]
    return (torch.cat(filled),)


def _generator(state: TrainingState, unlocked: tuple[Tensor, ...], masks: list[Tensor] | None = None) -> _Images:
    """The generator, as far as its codes have joined: codes [N, K] -> images, whose masks are added to a list."""

    def generate(codes: Tensor, **options: Any) -> Tensor:
        given = codes * unlocked[0] if unlocked else codes
        if masks is None:
            images: Tensor = state.G(given, **options)
            return images
        images, of_codes = state.G(given, return_masks=True, **options)
        masks.append(of_codes)
        return images

    return generate


def _levels(G: Generator) -> list[int]:
    """How many codes enter at each level, from coarse to fine."""
    return [count for count in G.synthesis.codes_per_module if count]


def _finest_masks(G: Generator) -> int:
    """How many codes of the finest level have masks, which are the last ones."""
    return sum(code >= G.num_codes - _levels(G)[-1] for code in G.masked_codes)


def _seen_by_reader(state: TrainingState, images: Tensor) -> Tensor:
    noise = state.config.reader_noise
    return images + noise * torch.randn_like(images) if noise else images


def _code_loss(state: TrainingState, z: Tensor, generator: _Images, unlocked: tuple[Tensor, ...]) -> PairedLoss:
    """Images of random numbers and the loss on what the recogniser reads in them."""
    config, Q = state.config, state.Q
    if Q is None:
        return PairedLoss(z.new_zeros(len(z)), generator(z))
    if Q.encoder is not None:
        codes = Q.encoder(z)
        images = generator(codes.sample())
        pred = Q.read_input(_seen_by_reader(state, images))
        weights = {"alpha": config.code_weight, "beta": config.bottleneck_weight}
        return PairedLoss(information_bottleneck_loss(pred, z, codes.mean, codes.log_var, **weights), images)

    def read(images: Tensor) -> Tensor:
        codes: Tensor = Q(_seen_by_reader(state, images))
        return codes

    if config.model == "info_gan":
        images = generator(z)
        return PairedLoss(config.code_weight * code_regression_loss(read(images), z, config.code_norm), images)
    paired: PairedLoss = state.ps_loss(generator, read, z, state.images_seen, *unlocked)
    return paired


def _regularization(state: TrainingState, codes: Tensor, unlocked: tuple[Tensor, ...]) -> Tensor:
    """What the regulariser says of the generator at these codes [N, K], a 0-d tensor."""
    name, generator = state.config.regularizer, _generator(state, unlocked)
    if state.P is None:
        return PENALTIES[name](lambda c: generator(c, noise_mode="const"), codes)
    if name == "vp":
        partners, dims = state.ps_loss.perturb(codes, state.images_seen, *unlocked)
    else:
        others = draw_codes(len(codes), codes.shape[1], state.config.latents, codes.device)
        partners, dims = sharing_partners(codes, others, *unlocked)
    images = generator(torch.cat([codes, partners]))
    return pair_loss(state.P(torch.cat(images.chunk(2), dim=1)), dims).mean()


def _update(state: TrainingState, optimizer: Adam, scaler: torch.amp.GradScaler | None = None) -> None:
    state.processes.average_gradients(optimizer.param_groups[0]["params"])
    if scaler is not None:
        scaler.unscale_(optimizer)
        scaler.update()
    state.skipped_updates += optimizer.update()


def _means(names: Iterable[str], passes: Iterable[Sequence[Tensor]]) -> dict[str, Tensor]:
    """The mean over all passes of each loss, by name."""
    return {name: torch.stack(losses).mean() for name, losses in zip(names, zip(*passes, strict=True), strict=True)}


def _generator_pass(state: TrainingState, z: Tensor, *unlocked: Tensor) -> tuple[Tensor, ...]:
    config = state.config
    penalties: list[Tensor] = []
    masks: list[Tensor] = []
    with _frozen(state.D):
        with half_precision(config.precision, z.device.type):
            generator = _generator(state, unlocked, masks if config.overlap_weight else None)
            code_loss, images = _code_loss(state, z, generator, unlocked)
            loss = generator_loss(state.D(state.augmentation(images)))
            total = loss.mean() + code_loss.mean()
        if config.regularizer != "none":
            penalties.append(_regularization(state, z, unlocked))
            total = total + config.regularizer_weight * penalties[0]
        if masks:
            penalties.append(mask_overlap(masks[0][:, -_finest_masks(state.G) :]).mean())
            total = total + config.overlap_weight * penalties[-1]
        state.g_scaler.scale(total / len(state.passes)).backward()
    return tuple(value.detach().mean() for value in (loss, code_loss, *penalties))


def update_generator(state: TrainingState, z: Iterable[Tensor]) -> dict[str, Tensor]:
    """Update generator and recogniser together.

    Args:
        state: changed in place.
        z: codes [B, K], or IB-GAN's random numbers [B, Z], one tensor for each of `state.passes`.

    Returns:
        Mean losses "loss/G", "loss/codes" and, where they have a weight, "loss/regularizer" and "loss/overlap", 0-d
        tensors.
    """
    state.g_optimizer.zero_grad()
    run = partial(state.graphs.run, "generator", partial(_generator_pass, state), state.g_optimizer)
    unlocked = _unlocked(state)
    passes = [run(z_of_pass, *unlocked) for z_of_pass in z]
    _update(state, state.g_optimizer, state.g_scaler)
    config = state.config
    names = ["loss/G", "loss/codes"]
    names += ["loss/regularizer"] * (config.regularizer != "none") + ["loss/overlap"] * (config.overlap_weight > 0)
    return _means(names, passes)


def _discriminator_pass(
    state: TrainingState, passes: int, reals: Tensor, z: Tensor, *unlocked: Tensor
) -> tuple[Tensor]:
    with half_precision(state.config.precision, reals.device.type):
        with torch.no_grad():
            fakes = _generator(state, unlocked)(_codes(state, z))
        of_reals = state.D(state.augmentation(reals))
        loss = discriminator_loss(state.D(state.augmentation(fakes)), of_reals).mean()
    state.augmentation.observe(of_reals)
    state.d_scaler.scale(loss / passes).backward()
    return (loss.detach(),)


def update_discriminator(state: TrainingState, reals: Sequence[Tensor], z: Iterable[Tensor]) -> dict[str, Tensor]:
    """Update the discriminator.

    Args:
        state: changed in place.
        reals: real images [B, C, H, W] in [-1, 1], one tensor a pass.
        z: as for `update_generator`, of the images to tell from them, one tensor a pass.

    Returns:
        The mean loss "loss/D", a 0-d tensor.
    """
    state.d_optimizer.zero_grad()
    run = partial(state.graphs.run, "discriminator", partial(_discriminator_pass, state, len(reals)), state.d_optimizer)
    unlocked = _unlocked(state)
    passes = [run(*inputs, *unlocked) for inputs in zip(reals, z, strict=True)]
    _update(state, state.d_optimizer, state.d_scaler)
    return _means(("loss/D",), passes)


def _r1_pass(state: TrainingState, passes: int, reals: Tensor) -> tuple[Tensor]:
    penalty = r1_penalty(state.D, state.augmentation(reals), state.config.r1_gamma).mean()
    (penalty * state.config.d_reg_interval / passes).backward()
    return (penalty.detach(),)


def update_r1(state: TrainingState, reals: Sequence[Tensor]) -> dict[str, Tensor]:
    """Regularise the discriminator by R1, with the weight that makes up for the skipped steps.

    Args:
        state: changed in place.
        reals: real images [B, C, H, W] in [-1, 1], one tensor a pass.

    Returns:
        The mean penalty "loss/R1", a 0-d tensor without that weight.
    """
    state.d_optimizer.zero_grad()
    run = partial(state.graphs.run, "R1", partial(_r1_pass, state, len(reals)), state.d_optimizer)
    passes = []
    for number, reals_of_pass in zip(state.passes, reals, strict=False):
        _seed_pass(state, _R1, number)
        passes.append(run(reals_of_pass))
    _update(state, state.d_optimizer)
    return _means(("loss/R1",), passes)


def update_averages(state: TrainingState) -> None:
    """Move the averaged networks of `state` towards the trained ones."""
    beta = state.config.ema_beta(state.images_seen)
    average_into(state.G_ema, state.G, beta)
    if state.Q is not None and state.Q_ema is not None:
        average_into(state.Q_ema, state.Q, beta)


def _seed_pass(state: TrainingState, phase: int, number: int) -> None:
    """Let PyTorch's random numbers begin at a place that depends on seed, images seen, phase and pass alone.

    So they are the same whatever process draws them, and whether the training was interrupted.
    """
    seed = np.random.SeedSequence((state.config.seed, state.images_seen, phase, number)).generate_state(1)[0]
    torch.manual_seed(int(seed))


def _draw_inputs(state: TrainingState, phase: int, device: torch.device) -> Iterator[Tensor]:
    """Codes [B, K], or IB-GAN's random numbers [B, Z], for each of the state's passes."""
    config = state.config
    for number in state.passes:
        _seed_pass(state, phase, number)
        yield draw_codes(config.batch_per_pass, state.z_dim, config.latents, device)


def training_step(state: TrainingState, reals: Tensor) -> dict[str, Tensor]:
    """One update of every network.

    Args:
        state: changed in place.
        reals: this process's share of one batch of real images, [config.batch / processes, C, H, W] in [-1, 1].

    Returns:
        Mean losses over all processes by name, 0-d tensors.
    """
    config = state.config
    reals_of_passes = reals.split(config.batch_per_pass)
    skipped_before = state.skipped_updates.clone()
    with convolution_precision(config.precision):
        losses = update_generator(state, _draw_inputs(state, _GENERATOR, reals.device))
        update_averages(state)
        losses |= update_discriminator(state, reals_of_passes, _draw_inputs(state, _DISCRIMINATOR, reals.device))
        if state.updates % config.d_reg_interval == 0:
            losses |= update_r1(state, reals_of_passes)
    state.skipped_in_a_row.add_(1).mul_(state.skipped_updates > skipped_before)
    state.processes.average(list(losses.values()))
    state.updates += 1
    state.augmentation.adjust(state.updates, config.batch, state.processes)
    if config.augment != "none":
        losses["augment/probability"] = state.augmentation.probability.clone()
    state.images_seen += config.batch
    return losses
