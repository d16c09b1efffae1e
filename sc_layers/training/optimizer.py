"""Adam as the authors' program has it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether no entry of `tensors`, of any shapes, is infinite or not-a-number."""
    return bool(torch.isfinite(nn.utils.get_total_norm(tensors, norm_type=math.inf)))


class Adam(torch.optim.Adam):
    """Adam in TensorFlow's form, which skips an update whose gradient is not finite.

    `p <- p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)`: eps stays outside of the bias correction.
    PyTorch's form equals it with `eps / sqrt(1 - beta2^t)` in place of `eps`, which is what this class sets before
    each update. All parameters form one group, for a single step counter and a single check of the gradients.

    Args:
        params: the parameters.
        lr: learning rate.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.

    Source: SPEC, losses and training.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)
        (self._group,) = self.param_groups
        self._group["base_eps"] = eps
        self._group["updates"] = 0

    def update(self) -> bool:
        """Apply the gradients unless one of them is not finite; returns whether they were applied.

        A parameter that the loss does not depend on has the gradient 0, which lets its second moment decay.
        """
        for parameter in self._group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        if not are_finite(parameter.grad for parameter in self._group["params"]):
            return False
        self._group["updates"] += 1
        correction = 1 - self._group["betas"][1] ** self._group["updates"]
        self._group["eps"] = self._group["base_eps"] / math.sqrt(correction)
        self.step()
        return True

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take moments and counters from the `state_dict` of another optimiser of this class; settings stay ours.

        Raises:
            ValueError: it belongs to parameters of other shapes or number, or lacks something.
        """
        self._check(state_dict)
        settings = {name: self._group[name] for name in ("lr", "betas", "base_eps")}
        super().load_state_dict(state_dict)
        (self._group,) = self.param_groups
        self._group.update(settings)

    def _check(self, state_dict: Any) -> None:
        groups = state_dict.get("param_groups") if isinstance(state_dict, dict) else None
        moments = state_dict.get("state") if isinstance(state_dict, dict) else None
        if not isinstance(groups, list) or len(groups) != 1 or not isinstance(moments, dict):
            raise ValueError("no state of an optimiser with one group of parameters")
        for name in ("updates", "base_eps"):
            if not isinstance(groups[0], dict) or not isinstance(groups[0].get(name), (int, float)):
                raise ValueError(f"the state of an optimiser lacks {name}")
        for index, parameter in enumerate(self._group["params"]):
            entry = moments.get(index, {} if groups[0]["updates"] == 0 else None)
            for name in ("exp_avg", "exp_avg_sq") if entry != {} else ():
                moment = entry.get(name) if isinstance(entry, dict) else None
                if not isinstance(moment, Tensor) or moment.shape != parameter.shape:
                    raise ValueError(f"the state of an optimiser does not fit its parameter {index}: {name}")


def lazy_adam(params: Iterable[nn.Parameter], lr: float, beta2: float, eps: float, interval: int) -> Adam:
    """Adam with beta1 = 0, corrected for a regulariser that runs every `interval` steps in an update of its own.

    With `c = interval / (interval + 1)` the learning rate is `lr * c` and the decay `beta2^c`.

    Args:
        params: the parameters.
        lr: learning rate before the correction.
        beta2: decay of the second moment before the correction.
        eps: what is added to the root of the second moment.
        interval: in steps.
    """
    correction = interval / (interval + 1)
    return Adam(params, lr * correction, (0.0, beta2**correction), eps)


def average_into(average: nn.Module, source: nn.Module, beta: float) -> None:
    """Exponential moving average: `average <- source + beta * (average - source)`; buffers are copied."""
    with torch.no_grad():
        averaged: list[Tensor] = list(average.parameters())
        torch._foreach_lerp_(averaged, list(source.parameters()), 1 - beta)
        for target, buffer in zip(average.buffers(), source.buffers(), strict=True):
            target.copy_(buffer)
