"""Adam in TensorFlow's form, lazy regularisation, and the moving average."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from sc_layers.training.optimizer import Adam, average_into, lazy_adam
from tests.tolerances import ROUNDING


def _tensorflow_adam(start: torch.Tensor, gradients: list[torch.Tensor], lr, betas, eps) -> torch.Tensor:
    """The update as SPEC writes it, in float64."""
    p, m, v = start.double(), 0.0, 0.0
    for t, gradient in enumerate(gradients, 1):
        g = gradient.double()
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g.square()
        p = p - lr * math.sqrt(1 - betas[1] ** t) / (1 - betas[0] ** t) * m / (v.sqrt() + eps)
    return p


@pytest.mark.parametrize("betas", [(0.0, 0.99), (0.9, 0.999)])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_adam_is_tensorflows(betas: tuple[float, float], eps: float) -> None:
    start = torch.randn(5)
    gradients = [torch.randn(5) for _ in range(4)]
    parameter = nn.Parameter(start.clone())
    optimizer = Adam([parameter], 0.01, betas, eps)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        assert optimizer.update() == 0
    expected = _tensorflow_adam(start, gradients, 0.01, betas, eps)
    torch.testing.assert_close(parameter.detach().double(), expected, **ROUNDING)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_update_with_a_gradient_that_is_not_finite_is_skipped(bad: float) -> None:
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    optimizer = Adam(parameters, 0.1, (0.0, 0.99), 1e-8)
    parameters[0].grad, parameters[1].grad = torch.ones(3), torch.tensor([1.0, bad])
    assert optimizer.update() == 1
    assert all(torch.equal(p.data, torch.ones_like(p)) for p in parameters)
    parameters[1].grad = torch.ones(2)
    assert optimizer.update() == 0
    # The skipped update does not count: the first update of Adam with beta1 = 0 moves by the learning rate.
    torch.testing.assert_close(parameters[0].data, torch.full((3,), 0.9))


def test_moments_and_counters_survive_saving_and_loading() -> None:
    gradients = [torch.randn(4) for _ in range(6)]

    def run(reload_at: int | None) -> torch.Tensor:
        parameter = nn.Parameter(torch.zeros(4))
        optimizer = Adam([parameter], 0.01, (0.0, 0.9), 1e-3)
        for step, gradient in enumerate(gradients):
            if step == reload_at:
                stored = optimizer.state_dict()
                optimizer = Adam([parameter], 0.01, (0.0, 0.9), 1e-3)
                optimizer.load_state_dict(stored)
            parameter.grad = gradient.clone()
            optimizer.update()
        return parameter.detach()

    assert torch.equal(run(None), run(3))


def test_a_state_of_before_counters_were_tensors_is_taken() -> None:
    parameter = nn.Parameter(torch.zeros(4))
    optimizer = Adam([parameter], 0.01, (0.0, 0.9), 1e-3)
    group = {"lr": 1.0, "betas": (0.5, 0.5), "eps": 2.0, "base_eps": 2.0, "updates": 3, "amsgrad": False, "params": [0]}
    moments = {"step": torch.tensor(3.0), "exp_avg": torch.ones(4), "exp_avg_sq": torch.full((4,), 2.0)}
    optimizer.load_state_dict({"param_groups": [group], "state": {0: moments}})
    assert set(optimizer.state[parameter]) == {"exp_avg", "exp_avg_sq"}
    (now,) = optimizer.param_groups
    assert (now["lr"], now["betas"], now["eps"], now["updates"]) == (0.01, (0.0, 0.9), 1e-3, 3)
    assert "base_eps" not in now


def test_gradients_are_zeroed_where_they_are() -> None:
    parameters = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    optimizer = Adam(parameters, 0.1, (0.0, 0.99), 1e-8)
    optimizer.zero_grad()
    before = [parameter.grad for parameter in parameters]
    parameters[0].sum().backward()
    assert torch.equal(before[0], torch.ones(3))
    optimizer.zero_grad()
    assert all(parameter.grad is gradient for parameter, gradient in zip(parameters, before, strict=True))
    assert not before[0].any()
    with pytest.raises(ValueError, match="set_to_none must be False"):
        optimizer.zero_grad(set_to_none=True)


def test_gradients_and_moments_of_another_memory_format_belong_to_the_same_entries() -> None:
    start, gradients = torch.randn(4, 3, 2, 2), torch.randn(3, 4, 3, 2, 2)
    results = []
    for formats in ([torch.contiguous_format] * 3, [torch.channels_last, torch.contiguous_format, torch.channels_last]):
        parameter = nn.Parameter(start.clone())
        optimizer = Adam([parameter], 0.01, (0.5, 0.99), 1e-8)
        for gradient, memory_format in zip(gradients, formats, strict=True):
            parameter.data = parameter.data.contiguous(memory_format=memory_format)
            parameter.grad = gradient.clone()
            optimizer.update()
        results.append(parameter.detach())
    assert torch.equal(*results)


def test_lazy_correction_of_rate_and_decay() -> None:
    (group,) = lazy_adam([nn.Parameter(torch.zeros(1))], 0.002, 0.99, 1e-8, interval=4).param_groups
    assert group["lr"] == pytest.approx(0.002 * 4 / 5)
    assert group["betas"] == pytest.approx((0.0, 0.99 ** (4 / 5)))


def test_average_moves_parameters_and_copies_buffers() -> None:
    average, source = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
    source.weight.data.fill_(5.0)
    source.running_mean.fill_(7.0)
    average_into(average, source, beta=0.75)
    torch.testing.assert_close(average.weight.data, torch.full((3,), 2.0))
    torch.testing.assert_close(average.running_mean, torch.full((3,), 7.0))


def test_a_network_without_buffers_is_averaged() -> None:
    average, source = nn.Linear(2, 1), nn.Linear(2, 1)
    average_into(average, source, beta=0.0)
    torch.testing.assert_close(average.weight, source.weight)
