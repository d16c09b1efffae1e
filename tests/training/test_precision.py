"""Number formats: what runs in half precision, what never does, and how a loss is scaled."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sc_layers.training import TrainingConfig, step
from sc_layers.training.precision import check_precision, convolution_precision, half_precision, loss_scaler
from sc_layers.training.step import training_step, update_r1
from tests.training.tiny import TINY, tiny_state

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def seen_dtypes(network: nn.Module) -> set[torch.dtype]:
    """The dtypes of all features that go into the network's blocks, to be filled by its forward passes."""
    dtypes: set[torch.dtype] = set()
    for module in network.blocks:
        module.register_forward_pre_hook(lambda _, inputs: dtypes.add(inputs[0].dtype))
    return dtypes


def reals(state: step.TrainingState) -> Tensor:
    config = state.D.config
    return torch.randn(state.config.batch, config.num_channels, config.resolution, config.resolution)


@pytest.mark.parametrize("precision", HALF)
def test_networks_run_in_half_precision_on_parameters_in_float32(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step, "check_precision", lambda *_: None)
    state = tiny_state(TINY.replace(precision=precision, d_reg_interval=1000))
    state.updates = 1  # no R1
    dtypes = seen_dtypes(state.D)
    losses = training_step(state, reals(state))
    assert dtypes == {HALF[precision]}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {p.dtype for network in (state.G, state.D, state.Q) for p in network.parameters()} == {torch.float32}
    assert state.skipped_updates == 0


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_r1_runs_in_float32(precision: str) -> None:
    state = tiny_state(TINY.replace(precision=precision))
    dtypes = seen_dtypes(state.D)
    update_r1(state, [reals(state)[: TINY.batch_per_pass]])
    assert dtypes == {torch.float32}


def test_bfloat16_trains_about_as_float32_does() -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        torch.manual_seed(0)
        state = tiny_state(TINY.replace(precision=precision))
        torch.manual_seed(1)
        images = reals(state)
        losses[precision] = training_step(state, images)
    for name, loss in losses["bf16"].items():
        torch.testing.assert_close(loss, losses["fp32"][name], rtol=0.1, atol=0.02)


def test_a_scaled_loss_gives_the_gradients_of_the_loss_and_overflow_halves_the_scale() -> None:
    scaler = loss_scaler("fp16", "cpu")
    parameter = nn.Parameter(torch.tensor([3.0]))
    optimizer = torch.optim.SGD([parameter], lr=1)
    scaler.scale(parameter.square().sum()).backward()
    scale = scaler.get_scale()
    assert parameter.grad is not None
    assert parameter.grad.item() == 6 * scale
    scaler.unscale_(optimizer)
    scaler.update()
    assert parameter.grad.item() == 6
    parameter.grad.fill_(float("inf"))
    scaler.unscale_(optimizer)
    scaler.update()
    assert scaler.get_scale() == scale / 2


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_losses_of_other_precisions_are_not_scaled(precision: str) -> None:
    assert not loss_scaler(precision, "cpu").is_enabled()
    assert half_precision(precision, "cpu")._enabled == (precision == "bf16")


@pytest.mark.parametrize(("precision", "inside"), [("fp32", "ieee"), ("tf32", "tf32"), ("bf16", "tf32")])
def test_float32_convolutions_round_their_factors_unless_told_not_to(precision: str, inside: str) -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    with convolution_precision(precision):
        assert torch.backends.cudnn.conv.fp32_precision == inside
    assert torch.backends.cudnn.conv.fp32_precision == before


def test_float16_is_refused_on_the_cpu_and_unknown_precisions_everywhere() -> None:
    with pytest.raises(ValueError, match="precision fp16 is for graphics cards"):
        check_precision("fp16", "cpu")
    check_precision("fp16", "cuda")
    with pytest.raises(ValueError, match="precision must be one of fp32, tf32, bf16, fp16, got 'half'"):
        TrainingConfig(precision="half")
