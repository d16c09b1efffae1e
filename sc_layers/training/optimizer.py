"""Adam as the authors' program has it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

_MOMENTS = ("exp_avg", "exp_avg_sq")


def finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether no entry of `tensors`, of any shapes, is infinite or not-a-number: a 0-d bool, on their device."""
    return torch.isfinite(nn.utils.get_total_norm(tensors, norm_type=math.inf))


class Adam(torch.optim.Optimizer):
    """Adam in TensorFlow's form, which skips an update whose gradient is not finite.

    `p <- p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)`: eps stays outside of the bias correction.
    All parameters form one group, for a single step counter and a single check of the gradients. Both stay on the
    device, which nothing waits for; gradients stay where they are, so that a CUDA graph can add to them.

    Args:
        params: the parameters, of one device.
        lr: learning rate.
        betas: decay of the first and second moment.
        eps: added to the root of the second moment.

    Source: SPEC, losses and training.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        (self._group,) = self.param_groups
        device = self._group["params"][0].device
        self._group["updates"] = torch.zeros((), device=device)
        # PyTorch's form corrects both moments itself. After infinitely many steps its corrections are 1.
        self._steps = torch.full((), math.inf, device=device)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Set all gradients to 0, in place.

        Raises:
            ValueError: `set_to_none` is True.
        """
        if set_to_none:
            raise ValueError("the gradients of this optimiser stay where they are: set_to_none must be False")
        torch._foreach_zero_(self._gradients())

    def _gradients(self) -> list[Tensor]:
        """Gradients, in the memory format of their parameters; 0 where a loss does not depend on one."""
        for parameter in self._group["params"]:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad = _laid_out_as(parameter, parameter.grad)
        return [parameter.grad for parameter in self._group["params"] if parameter.grad is not None]

    def _moments(self, name: str) -> list[Tensor]:
        for parameter in self._group["params"]:
            state = self.state[parameter]
            state[name] = _laid_out_as(parameter, state[name] if name in state else torch.zeros_like(parameter))
        return [self.state[parameter][name] for parameter in self._group["params"]]

    def _rate(self) -> Tensor:
        """The learning rate with the bias corrections of the update that is next."""
        updates = self._group["updates"] + 1
        of_first, of_second = (_correction(beta, updates) for beta in self._group["betas"])
        return self._group["lr"] * of_second.sqrt() / of_first

    @torch.no_grad()
    def update(self) -> Tensor:
        """Apply the gradients unless one of them is not finite.

        A parameter that the loss does not depend on has the gradient 0, which lets its second moment decay.

        Returns:
            Whether they were skipped, 0-d, 0.0 or 1.0, on the parameters' device.
        """
        gradients = self._gradients()
        skipped = 1 - finite(gradients).float()
        beta1, beta2 = self._group["betas"]
        adam(
            list(self._group["params"]),
            gradients,
            self._moments("exp_avg"),
            self._moments("exp_avg_sq"),
            [],
            [self._steps] * len(gradients),
            fused=True,
            found_inf=skipped,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=self._rate(),
            weight_decay=0.0,
            eps=self._group["eps"],
            maximize=False,
        )
        self._group["updates"] += 1 - skipped
        return skipped

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take moments and counters from the `state_dict` of another optimiser of this class; settings stay ours.

        Raises:
            ValueError: it belongs to parameters of other shapes or number, or lacks something.
        """
        self._check(state_dict)
        (group,), moments = state_dict["param_groups"], state_dict["state"]
        self._group["updates"].fill_(float(group["updates"]))
        own = {name: value for name, value in self._group.items() if name != "params"}
        taken = {index: {name: moments[index][name] for name in _MOMENTS} for index in moments}
        super().load_state_dict({"state": taken, "param_groups": [own | {"params": group["params"]}]})
        (self._group,) = self.param_groups
        self._group.update(own)

    def _check(self, state_dict: Any) -> None:
        groups = state_dict.get("param_groups") if isinstance(state_dict, dict) else None
        moments = state_dict.get("state") if isinstance(state_dict, dict) else None
        if not isinstance(groups, list) or len(groups) != 1 or not isinstance(moments, dict):
            raise ValueError("no state of an optimiser with one group of parameters")
        updates = groups[0].get("updates") if isinstance(groups[0], dict) else None
        if not isinstance(updates, (int, float)) and not (isinstance(updates, Tensor) and updates.numel() == 1):
            raise ValueError("the state of an optimiser lacks updates")
        for index, parameter in enumerate(self._group["params"]):
            entry = moments.get(index, {} if updates == 0 else None)
            for name in _MOMENTS if entry != {} else ():
                moment = entry.get(name) if isinstance(entry, dict) else None
                if not isinstance(moment, Tensor) or moment.shape != parameter.shape:
                    raise ValueError(f"the state of an optimiser does not fit its parameter {index}: {name}")


def _correction(beta: float, updates: Tensor) -> Tensor:
    """`1 - beta^updates`, to the last digit for few updates too."""
    return -torch.expm1(updates * math.log(beta)) if beta else torch.ones_like(updates)


def _laid_out_as(parameter: Tensor, values: Tensor) -> Tensor:
    """`values` in the memory format of `parameter`: the fused update goes through both as they lie in memory."""
    return values if values.stride() == parameter.stride() else torch.empty_like(parameter).copy_(values)


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
        torch._foreach_lerp_(list(average.parameters()), list(source.parameters()), 1 - beta)
        for target, buffer in zip(average.buffers(), source.buffers(), strict=True):
            target.copy_(buffer)
