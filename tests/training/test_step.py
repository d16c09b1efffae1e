"""The training step against the authors' program: losses, gradients, and the parameters after each of three steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sc_layers.checkpoints.foreign.tf_variables import config_from_tf, state_dict_from_tf
from sc_layers.losses import PerceptualSimplicityLoss, PerturbedCodes, code_regression_loss, r1_penalty
from sc_layers.models import Discriminator, Generator, Recognizer
from sc_layers.regularizers import PAIRED, pair_loss
from sc_layers.training import TrainingConfig, TrainingState
from sc_layers.training.config import MODELS
from sc_layers.training.step import training_step, update_averages, update_discriminator, update_generator, update_r1
from tests.golden import Golden, load_golden
from tests.tolerances import (
    GOLDEN_LAYER_RELATIVE,
    GOLDEN_LOSS,
    GOLDEN_TRAINED_ABSOLUTE,
    SAME_FORMULA,
    assert_close_absolute,
)
from tests.training.tiny import JOINING, MASKED_LAST, TINY, tiny_model, tiny_state

CLASSES = {"G": Generator, "D": Discriminator, "I": Recognizer, "Gs": Generator}


class _FixedPerturbation(PerceptualSimplicityLoss):
    """Perturbs the dimensions and by the amounts that it is given."""

    def set(self, dims: Tensor, amounts: Tensor) -> None:
        self.dims, self.amounts = dims.long(), amounts

    def perturb(self, codes: Tensor, images_seen: int = 0, chances: Tensor | None = None) -> PerturbedCodes:
        onehot = nn.functional.one_hot(self.dims, codes.shape[1])
        return PerturbedCodes(codes + onehot * self.amounts, self.dims)


def _network(golden: Golden, name: str, prefix: str) -> nn.Module:
    """The golden file's network `name` with the variables under `prefix`."""
    arguments = golden.config[f"{name[0]}_args"]
    size = {"resolution": golden.config["resolution"], "num_channels": golden.config["num_channels"]}
    config = config_from_tf(arguments["func_name"], {**arguments, **size})
    network = CLASSES[name](config)
    network.load_state_dict(state_dict_from_tf(config, golden.group(prefix)))
    return network


def _state(golden: Golden, config: TrainingConfig, prefix: str) -> TrainingState:
    networks = (_network(golden, name, f"{prefix}{name}/") for name in ("G", "D", "I"))
    state = TrainingState.create(config, *networks)
    state.ps_loss = _FixedPerturbation(config.code_weight)
    return state


def _settings(golden: Golden, **changes: Any) -> TrainingConfig:
    batch = golden.config["B"]
    return TrainingConfig(
        latents="normal",
        batch=batch,
        batch_per_pass=batch,
        r1_gamma=golden.config["gamma"],
        code_weight=golden.config["C_lambda"],
        **changes,
    )


def _assert_network(network: nn.Module, golden: Golden, prefix: str) -> float:
    """Compare every parameter of a network with the variables under `prefix`."""
    expected = state_dict_from_tf(network.config, golden.group(prefix))
    return max(
        assert_close_absolute(value, expected[name], GOLDEN_TRAINED_ABSOLUTE, f"{prefix}{name}")
        for name, value in network.state_dict().items()
    )


def test_three_training_steps_match_authors_program() -> None:
    golden = load_golden("train_steps")
    state = _state(golden, _settings(golden, d_reg_interval=golden.config["D_reg_interval"]), "init/")
    state.G_ema = _network(golden, "Gs", "init/Gs/")
    for step in range(golden.config["steps"]):
        given = {key: golden[f"step{step}/{key}"] for key in ("z_G", "z_D", "eps_draw", "dims", "reals")}
        state.ps_loss.set(given["dims"], golden.config["epsilon"] * given["eps_draw"])
        losses = update_generator(state, [given["z_G"]])
        losses |= update_discriminator(state, [given["reals"]], [given["z_D"]])
        update_averages(state)
        total = losses["loss/G"] + losses["loss/codes"]
        torch.testing.assert_close(total, golden["G_loss"][step], **GOLDEN_LOSS)
        torch.testing.assert_close(losses["loss/D"], golden["D_loss"][step], **GOLDEN_LOSS)
        if step % golden.config["D_reg_interval"] == 0:
            penalty = update_r1(state, [given["reals"]])["loss/R1"]
            torch.testing.assert_close(penalty, golden["D_reg"][step], **GOLDEN_LOSS)
        for name, network in {"G": state.G, "D": state.D, "I": state.Q, "Gs": state.G_ema}.items():
            _assert_network(network, golden, f"step{step}/{name}/")


def _assert_gradients(loss: Tensor, network: nn.Module, golden: Golden, prefix: str) -> None:
    """Compare the gradients of `loss` with respect to a network's parameters, as fractions of their largest entry.

    A parameter whose gradients are all tiny is compared with a tenth of the largest in the network.
    """
    variables = golden.group(prefix)
    if isinstance(network, Generator):
        variables["lod"] = torch.zeros(()).numpy()
    expected = state_dict_from_tf(network.config, variables)
    overall = max(tensor.abs().max().item() for tensor in expected.values())
    named = dict(network.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()), retain_graph=True, materialize_grads=True)
    for name, gradient in zip(named, gradients, strict=True):
        largest = max(expected[name].abs().max().item(), 0.1 * overall)
        limit = GOLDEN_LAYER_RELATIVE * largest
        assert_close_absolute(gradient, expected[name], limit, f"{prefix}{name}")


@pytest.fixture(scope="module")
def end2end() -> tuple[Golden, TrainingState]:
    golden = load_golden("loss_end2end")
    return golden, _state(golden, _settings(golden), "")


def _close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, **GOLDEN_LOSS)


def test_adversarial_loss_and_gradients_match(end2end) -> None:
    golden, state = end2end
    images = state.G(golden["z"])
    _close(images, golden["fake_images"])
    loss = nn.functional.softplus(-state.D(images))
    _close(loss, golden["G_ns_loss"])
    _assert_gradients(loss.mean(), state.G, golden, "grad_G_ns/")


def test_perceptual_simplicity_loss_and_gradients_match(end2end) -> None:
    golden, state = end2end
    state.ps_loss.set(golden["dims"], golden.config["epsilon"] * golden["eps_draw"])
    code_loss, images = state.ps_loss(state.G, state.Q, golden["z"])
    loss = nn.functional.softplus(-state.D(images)).mean() + code_loss.mean()
    _close(loss, golden["G_ps_loss_mean"])
    _assert_gradients(loss, state.G, golden, "grad_G_ps_G/")
    _assert_gradients(loss, state.Q, golden, "grad_G_ps_I/")


def test_cascade_with_uniform_latents_matches(end2end) -> None:
    golden, state = end2end
    cascade = golden.config["cascade"]
    kimg = 1.0
    loss = PerceptualSimplicityLoss(golden.config["C_lambda"], cascade["epsilon"], False, kimg)
    paired = loss(state.G, state.Q, golden["z_uniform"], images_seen=cascade["dim"] * 1000)
    adversarial = nn.functional.softplus(-state.D(paired.images))
    _close(adversarial + paired.loss, golden["G_ps_cascade_loss"])


def test_info_gan_loss_and_gradients_match(end2end) -> None:
    golden, state = end2end
    images = state.G(golden["z"])
    code_loss = golden.config["C_lambda"] * code_regression_loss(
        state.Q(images), golden["z"], golden.config["norm_ord"]
    )
    adversarial = nn.functional.softplus(-state.D(images))
    _close(adversarial + code_loss, golden["G_info_loss"])
    _assert_gradients(code_loss.mean(), state.Q, golden, "grad_G_info_I/")


def test_discriminator_loss_and_gradients_match(end2end) -> None:
    golden, state = end2end
    loss = nn.functional.softplus(state.D(state.G(golden["z"]).detach()))
    loss = loss + nn.functional.softplus(-state.D(golden["reals"]))
    _close(loss, golden["D_loss"])
    _assert_gradients(loss.mean(), state.D, golden, "grad_D_loss/")


def test_r1_penalty_and_gradients_match(end2end) -> None:
    golden, state = end2end
    penalty = r1_penalty(state.D, golden["reals"], golden.config["gamma"])
    _close(penalty, golden["D_reg"])
    _assert_gradients(penalty.mean(), state.D, golden, "grad_D_reg/")


@pytest.mark.parametrize("model", MODELS)
def test_step_moves_every_network(model: str) -> None:
    state = tiny_state(tiny_model(model).replace(average_recognizer=model != "gan"))
    networks = {name: getattr(state, name) for name in ("G", "D", "Q", "G_ema", "Q_ema")}
    networks = {name: network for name, network in networks.items() if network is not None}
    assert ("Q" in networks) == (model != "gan")
    before = {name: [p.clone() for p in network.parameters()] for name, network in networks.items()}
    losses = training_step(state, torch.randn(8, 3, 32, 32))
    assert all(torch.isfinite(loss) for loss in losses.values())
    for name, network in networks.items():
        # Strengths of noise and weights behind zeros may stand still in one step, most must move.
        moved = [not torch.equal(p, old) for p, old in zip(network.parameters(), before[name], strict=True)]
        assert sum(moved) > 0.7 * len(moved), name
    assert state.images_seen == 8
    assert state.updates == 1


def test_r1_runs_in_the_first_step_and_then_at_its_interval() -> None:
    state = tiny_state()
    ran = ["loss/R1" in training_step(state, torch.randn(8, 3, 32, 32)) for _ in range(4)]
    assert ran == [True, False, True, False]


def test_gradients_of_passes_add_up_to_those_of_the_batch() -> None:
    reals, codes = torch.randn(4, 3, 32, 32), torch.randn(4, 3)
    one, many = tiny_state(), tiny_state()
    update_discriminator(one, [reals, reals], [codes, codes])
    update_discriminator(many, [reals], [codes])
    for p, q in zip(one.D.parameters(), many.D.parameters(), strict=True):
        torch.testing.assert_close(p, q, **SAME_FORMULA[torch.float32])


class _Waits(TorchDispatchMode):
    """Notes operations whose result the host must know, for which it would have to wait for a card."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket.__name__ in ("_local_scalar_dense", "equal", "nonzero", "masked_select"):
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("config", [*map(tiny_model, MODELS), JOINING], ids=[*MODELS, "joining"])
def test_no_step_needs_to_know_a_result(config: TrainingConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def one_hot(dims: Tensor, count: int) -> Tensor:  # PyTorch's looks at its argument, though not on a card
        return (dims[:, None] == torch.arange(count)).long()

    monkeypatch.setattr(nn.functional, "one_hot", one_hot)
    state = tiny_state(config.replace(d_reg_interval=1), modules=MASKED_LAST)
    with _Waits() as waits:
        for _ in range(3):
            training_step(state, torch.rand(TINY.batch, 3, 32, 32) * 2 - 1)
    assert waits.seen == []


def _code_gradients(state: TrainingState) -> list[float]:
    """Largest gradient of the style of each of the three tiny codes, after one update of the generator."""
    update_generator(state, [torch.rand(4, 3) * 4 - 2, torch.rand(4, 3) * 4 - 2])
    layers = state.G.synthesis.layers
    spatial, everywhere = layers[2].style_weight.grad, layers[5].style.weight.grad
    return [*spatial.flatten(1).abs().amax(1).tolist(), everywhere.abs().max().item()]


@pytest.mark.parametrize("regularizer", ["none", "vp", "infogan_cr", "hessian"])
@pytest.mark.parametrize(
    ("images_seen", "joined"), [(0, [False, False, True]), (1_000, [False, False, True]), (1_100, [True, True, True])]
)
def test_a_code_learns_once_it_has_joined(images_seen: int, joined: list[bool], regularizer: str) -> None:
    state = tiny_state(TINY.replace(unlock_kimg=1, regularizer=regularizer))
    state.images_seen = images_seen
    assert [gradient > 0 for gradient in _code_gradients(state)] == joined


@pytest.mark.parametrize(("first", "joined"), [("finest", [0, 0, 1]), ("coarsest", [1, 1, 0])])
def test_the_discriminator_sees_no_code_that_has_not_joined(first: str, joined: list[int]) -> None:
    seen: list[Tensor] = []
    state = tiny_state(TINY.replace(unlock_kimg=1, unlock_first=first))
    state.G.mapping.register_forward_hook(lambda module, args, w: seen.append(args[0]))
    update_discriminator(state, [torch.rand(4, 3, 32, 32)], [torch.ones(4, 3)])
    assert seen[0].tolist() == [joined] * 4


def test_masks_of_the_finest_level_are_driven_apart() -> None:
    codes = torch.rand(4, 3) * 4 - 2
    overlaps = {}
    for weight in (0.001, 100.0):
        settings = TINY.replace(overlap_weight=weight, batch=4, learning_rate=0.01)
        state = tiny_state(settings, modules=MASKED_LAST)
        overlaps[weight] = [update_generator(state, [codes])["loss/overlap"].item() for _ in range(30)]
    assert overlaps[100.0][0] == overlaps[0.001][0]
    assert overlaps[100.0][-1] < 0.5 * overlaps[0.001][-1]


def test_settings_that_a_generator_cannot_follow_are_refused() -> None:
    one_level = "[Const-8, ResConv-up-1, C_spgroup-2-3, ResConv-up-1, ResConv-up-1]"
    with pytest.raises(ValueError, match="unlock_kimg needs a generator whose codes enter at several levels, got one"):
        tiny_state(TINY.replace(unlock_kimg=1.0), modules=one_level)
    with pytest.raises(
        ValueError, match=r"overlap_weight needs .* finest level has two codes with masks or more, got 0"
    ):
        tiny_state(TINY.replace(overlap_weight=1.0))


def test_codes_that_have_not_joined_are_not_perturbed() -> None:
    moved: list[Tensor] = []
    state = tiny_state(TINY.replace(unlock_kimg=1))
    perturb = state.ps_loss.perturb

    def noting(*arguments: Any) -> PerturbedCodes:
        perturbed = perturb(*arguments)
        moved.append(perturbed.dims)
        return perturbed

    state.ps_loss.perturb = noting
    update_generator(state, [torch.rand(16, 3), torch.rand(16, 3)])
    assert torch.cat(moved).tolist() == [2] * 32


@pytest.mark.parametrize("regularizer", PAIRED)
def test_pairs_are_told_apart_by_codes_that_have_joined(regularizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Tensor] = []

    def noting(logits: Tensor, dims: Tensor) -> Tensor:
        told.append(dims)
        return pair_loss(logits, dims)

    monkeypatch.setattr("sc_layers.training.step.pair_loss", noting)
    state = tiny_state(tiny_model("gan").replace(unlock_kimg=1, regularizer=regularizer))
    update_generator(state, [torch.rand(16, 3), torch.rand(16, 3)])
    assert torch.cat(told).tolist() == [2] * 32


@pytest.mark.parametrize("model", ["ps_sc", "info_gan", "ib_gan"])
def test_the_recogniser_reads_noisy_images_in_training(model: str) -> None:
    made: list[Tensor] = []
    read: list[Tensor] = []
    state = tiny_state(tiny_model(model).replace(reader_noise=0.2))
    state.G.register_forward_hook(lambda module, args, images: made.append(images))
    state.Q.from_rgb.register_forward_pre_hook(lambda module, args: read.append(args[0]))
    update_generator(state, [torch.randn(4, state.z_dim)])
    noise = read[0] - made[0]
    assert abs(noise.std().item() - 0.2) < 0.01
    assert abs(noise.mean().item()) < 0.01


def test_steps_in_a_row_that_skipped_an_update_are_counted() -> None:
    state = tiny_state()
    counts = []
    for good in (True, False, False, True):
        reals = torch.full((TINY.batch, 3, 32, 32), 0.5 if good else float("nan"))
        training_step(state, reals)
        counts.append(int(state.skipped_in_a_row))
    assert counts == [0, 1, 2, 0]
    assert state.skipped_updates == 3  # of R1 too in the third step
