"""Hooks by which spatial constriction enters generators of other code bases; installed by `sc_layers.attach`.

They are plain picklable objects that hold settings and one shared `InFlight`, never a module: generators that pickle
themselves by class and state would recurse on a reference to a parent.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

LAYER = "constriction"  # the name of the layer under the module that owns it

# PyTorch numbers hooks anew in every process, so that a hook registered on an unpickled module can take the number of
# an unpickled hook and replace it. A key that is no number cannot be taken.
_HOOK_KEY = "sc_layers"


class InFlight(threading.local):
    """What one forward pass carries from hook to hook. Empty between passes, and in copies and pickles."""

    codes: Tensor | None = None  # [N, K]
    features: Tensor | None = None  # [N, C, H, W]
    masks: list[Tensor] | None = None  # of [N, k, H, W], while somebody records them

    def __reduce__(self) -> tuple[type[InFlight], tuple[()]]:
        return InFlight, ()

    def forget(self) -> None:
        self.codes = self.features = None

    @contextmanager
    def recording_masks(self) -> Iterator[list[Tensor]]:
        """Collect the masks of every layer that runs inside the context."""
        masks: list[Tensor] = []
        self.masks = masks
        try:
            yield masks
        finally:
            self.masks = None


def split_codes(latent: Tensor, width: int, num_codes: int, what: str) -> tuple[Tensor, Tensor]:
    """Split [..., width + K] into [..., width] and codes [..., K]; codes are zeros where there are none.

    The first part is contiguous, as the network expects it: small matrix products round differently on a view.

    Raises:
        ValueError: any other width.
    """
    if latent.shape[-1] == width:
        return latent, latent.new_zeros(*latent.shape[:-1], num_codes)
    if latent.shape[-1] != width + num_codes:
        raise ValueError(
            f"{what} must have {width + num_codes} entries ({width} and {num_codes} codes), or {width} for codes 0, "
            f"got shape {tuple(latent.shape)}"
        )
    return latent[..., :width].contiguous(), latent[..., width:]


def add_pre_hook(module: nn.Module, hook: Hook) -> None:
    """Call `hook(module, args, kwargs) -> (args, kwargs)` before `module`."""
    cast(dict[Any, Any], module._forward_pre_hooks)[_HOOK_KEY] = hook
    cast(dict[Any, Any], module._forward_pre_hooks_with_kwargs)[_HOOK_KEY] = True


def add_hook(module: nn.Module, hook: Hook, always: bool = False) -> None:
    """Call `hook(module, args, output) -> output` after `module`; with `always` also where it failed (output None)."""
    cast(dict[Any, Any], module._forward_hooks)[_HOOK_KEY] = hook
    if always:
        cast(dict[Any, Any], module._forward_hooks_always_called)[_HOOK_KEY] = True


def remove_hooks(module: nn.Module) -> None:
    """Remove what the two functions above added to `module`, if anything."""
    for table in (
        module._forward_pre_hooks,
        module._forward_pre_hooks_with_kwargs,
        module._forward_hooks,
        module._forward_hooks_always_called,
    ):
        cast(dict[Any, Any], table).pop(_HOOK_KEY, None)


def bind(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    """Arguments of a call of `module` by name, however they were passed."""
    return inspect.signature(module.forward).bind(*args, **kwargs)


def _first(module: nn.Module, bound: inspect.BoundArguments) -> str:
    return next(iter(inspect.signature(module.forward).parameters))


class Hook:
    """Base of all hooks.

    Args:
        flight: shared by the hooks of one network.
    """

    def __init__(self, flight: InFlight) -> None:
        self.flight = flight


class Forget(Hook):
    """Behind a network: drop what is left in flight, also after an error."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self.flight.forget()


class TakeCodes(Hook):
    """Before a network: strip the codes off its first argument, [N, width + K] or [N, L, width + K].

    Codes are read from the first of L vectors: style mixing must not change them half-way.

    Args:
        flight: receives the codes.
        width: entries before the codes.
        num_codes: K.
        what: name of the argument in errors.
        detach_in_training: keep gradients of a network in training mode off the codes.
    """

    def __init__(self, flight: InFlight, width: int, num_codes: int, what: str, detach_in_training: bool) -> None:
        super().__init__(flight)
        self.width = width
        self.num_codes = num_codes
        self.what = what
        self.detach_in_training = detach_in_training

    def take(self, module: nn.Module, latent: Tensor) -> Tensor:
        """Put the codes of `latent` in flight, return the rest."""
        latent, codes = split_codes(latent, self.width, self.num_codes, self.what)
        if codes.ndim == 3:
            codes = codes[:, 0]
        self.flight.codes = codes.detach() if self.detach_in_training and module.training else codes
        return latent

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = bind(module, args, kwargs)
        name = _first(module, bound)
        bound.arguments[name] = self.take(module, bound.arguments[name])
        return bound.args, bound.kwargs


class AppendCodes(Hook):
    """Behind a mapping network: append the codes taken from z to w, [N, W] or [N, L, W]."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Tensor | None) -> Tensor | None:
        codes = self.flight.codes
        self.flight.forget()
        if output is None or codes is None:
            return None
        codes = codes.to(output.dtype)
        if output.ndim == 3:
            codes = codes[:, None].expand(-1, output.shape[1], -1)
        return torch.cat([output, codes], dim=-1)


class StripStyle(TakeCodes):
    """Before a layer whose argument `style` is one wide w: strip the codes.

    Args:
        first: whether the layer is the first to see w, so that its codes count.
    """

    def __init__(
        self, flight: InFlight, width: int, num_codes: int, what: str, detach_in_training: bool, first: bool
    ) -> None:
        super().__init__(flight, width, num_codes, what, detach_in_training)
        self.first = first

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = bind(module, args, kwargs)
        style = bound.arguments["style"]
        bound.arguments["style"] = (
            self.take(module, style) if self.first else split_codes(style, self.width, self.num_codes, self.what)[0]
        )
        return bound.args, bound.kwargs


class ShieldFromTruncation(TakeCodes):
    """Before a generator that truncates by itself: give the truncation's centre the codes of the sample.

    `centre + psi * (w - centre)` then leaves the codes alone. The first of `styles` counts.
    """

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = bind(module, args, kwargs)
        centre = bound.arguments.get("truncation_latent")
        if centre is None:
            return None
        latent = bound.arguments["styles"][0]
        _, codes = split_codes(latent, self.width, self.num_codes, self.what)
        centre = centre[..., : self.width].expand(*latent.shape[:-1], self.width)
        narrow = bound.arguments.get("input_is_latent", False) and latent.shape[-1] == self.width
        bound.arguments["truncation_latent"] = centre if narrow else torch.cat([centre, codes], dim=-1)
        return bound.args, bound.kwargs


class Constrict(Hook):
    """Behind the module that makes the features: constrict them by its own layer, `module.constriction`.

    Args:
        flight: holds the codes of the pass.
        start, stop: columns of the codes that act here.
    """

    def __init__(self, flight: InFlight, start: int, stop: int) -> None:
        super().__init__(flight)
        self.start = start
        self.stop = stop

    def constrict(self, module: nn.Module, features: Tensor) -> Tensor:
        flight = self.flight
        if flight.codes is None:
            raise RuntimeError(
                "a constricted layer ran outside its generator's forward pass, so that there are no codes: "
                "run the whole generator (or its synthesis network), or detach_spatial_constriction first"
            )
        layer = getattr(module, LAYER)
        codes = flight.codes[:, self.start : self.stop]
        if flight.masks is None:
            return cast(Tensor, layer(features, codes))
        features, masks = layer(features, codes, return_masks=True)
        flight.masks.append(masks)
        return features

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if not isinstance(output, tuple):
            return self.constrict(module, output)
        return self.constrict(module, output[0]), *output[1:]


class ConstrictInput(Constrict):
    """Before a module that only reads the features, such as ToRGB: constrict them, and keep them in flight."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # type: ignore[override]
        bound = bind(module, args, kwargs)
        name = _first(module, bound)
        bound.arguments[name] = self.flight.features = self.constrict(module, bound.arguments[name])
        return bound.args, bound.kwargs


class ReplaceFeatures(Hook):
    """Behind the block around such a module: return the constricted features in place of the block's first output."""

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        features, self.flight.features = self.flight.features, None
        return features, *output[1:]
