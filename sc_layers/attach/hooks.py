"""How codes that ride in w reach the layers of other people's generators: hooks, and a wrapper of the mapping network.

Every row of w stays wide on its way through the synthesis network. The modules that turn w into styles get it without
the codes, and a constricted layer finds its codes in the row that its own module was called with. So nothing is in
flight between hooks, and style mixing, checkpointing of single blocks, threads, `torch.compile`, `functional_call` and
export need no care.

Hooks are plain picklable objects that hold settings, never a module: generators that pickle themselves by class and
state would recurse on a reference to a parent.
"""

from __future__ import annotations

import inspect
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

LAYER = "constriction"  # the name of the layer under the module that owns it

# PyTorch numbers hooks anew in every process, so that a hook registered on an unpickled module can take the number of
# an unpickled hook and replace it. A key that is no number cannot be taken.
_HOOK_KEY = "sc_layers"


def is_wide(latent: Tensor, width: int, num_codes: int, what: str, dim: int = -1) -> bool:
    """Whether a latent has entries for codes behind its own.

    Args:
        latent: any shape with `width` or `width + num_codes` entries in dimension `dim`.
        width: number of entries of the latent before the codes.
        num_codes: K.
        what: the latent's name in errors.
        dim: the dimension along which the entries lie.

    Raises:
        ValueError: it has neither the wide nor the old width.
    """
    if latent.shape[dim] not in (width, width + num_codes):
        raise ValueError(
            f"{what} must have {width + num_codes} entries ({width} and {num_codes} codes), or {width} for codes 0, "
            f"got shape {tuple(latent.shape)}"
        )
    return latent.shape[dim] != width


def split_codes(latent: Tensor, width: int, num_codes: int, what: str) -> tuple[Tensor, Tensor]:
    """Split [..., width + K] into [..., width] and codes [..., K]; codes are zeros where there are none.

    Args:
        latent: [..., width + K] or [..., width].
        width: number of entries of the latent before the codes.
        num_codes: K.
        what: the latent's name in errors.

    Raises:
        ValueError: any other width.
    """
    if not is_wide(latent, width, num_codes, what):
        return latent, latent.new_zeros(*latent.shape[:-1], num_codes)
    return without_codes(latent, width), latent[..., width:]


def without_codes(latent: Tensor, width: int, dim: int = -1) -> Tensor:
    """The first `width` entries in dimension `dim`, in memory of their own, as the network expects them.

    Small matrix products round differently on a view, and `contiguous` leaves a single row where it lies.

    Args:
        latent: as wide as `width` in dimension `dim`, or wider.
        width: entries to keep.
        dim: the dimension that the codes end.
    """
    return latent.narrow(dim, 0, width).clone(memory_format=torch.contiguous_format)


def join_codes(latent: Tensor, codes: Tensor) -> Tensor:
    """Append codes [N, K] to every vector of a latent [N, W] or [N, L, W]."""
    codes = codes.to(latent.dtype)
    if latent.ndim == 3 and codes.ndim == 2:
        codes = codes[:, None].expand(-1, latent.shape[1], -1)
    return torch.cat([latent, codes], dim=-1)


@dataclass(frozen=True)
class Argument:
    """An argument of a module's forward, however it is passed.

    Args:
        name: the parameter's name.
        position: the parameter's position, from 0.
    """

    name: str
    position: int

    def of(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The argument's value in a call with `args` and `kwargs`."""
        return args[self.position] if len(args) > self.position else kwargs[self.name]

    def replaced(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """`args` and `kwargs` of a call with `value` in the argument's place."""
        if len(args) > self.position:
            return (*args[: self.position], value, *args[self.position + 1 :]), kwargs
        return args, {**kwargs, self.name: value}


def argument(module: nn.Module, name: str | None = None) -> Argument:
    """The argument of that name of a module's forward, or its first one."""
    names = list(inspect.signature(module.forward).parameters)
    position = 0 if name is None else names.index(name)
    return Argument(names[position], position)


def add_pre_hook(module: nn.Module, hook: Hook) -> None:
    """Call `hook(module, args, kwargs) -> (args, kwargs)` before `module`."""
    cast(dict[Any, Any], module._forward_pre_hooks)[_HOOK_KEY] = hook
    cast(dict[Any, Any], module._forward_pre_hooks_with_kwargs)[_HOOK_KEY] = True


def add_hook(module: nn.Module, hook: Hook, always: bool = False) -> None:
    """Call `hook(module, args, kwargs, output) -> output` after `module`; with `always` also where it failed."""
    cast(dict[Any, Any], module._forward_hooks)[_HOOK_KEY] = hook
    cast(dict[Any, Any], module._forward_hooks_with_kwargs)[_HOOK_KEY] = True
    if always:
        cast(dict[Any, Any], module._forward_hooks_always_called)[_HOOK_KEY] = True


def remove_hooks(module: nn.Module) -> None:
    """Remove what the two functions above added to `module`, if anything."""
    for table in (
        module._forward_pre_hooks,
        module._forward_pre_hooks_with_kwargs,
        module._forward_hooks,
        module._forward_hooks_with_kwargs,
        module._forward_hooks_always_called,
    ):
        cast(dict[Any, Any], table).pop(_HOOK_KEY, None)


class Hook:
    """Base of all hooks."""


class WidenW(Hook):
    """Before a synthesis network: complete w of the old width by codes 0, refuse any other width.

    Args:
        width: entries of w before the codes.
        num_codes: K.
        argument: w, [N, L, width + K] or [N, L, width].
        in_path_length: whether gradients reach the codes in training mode.
    """

    def __init__(self, width: int, num_codes: int, argument: Argument, in_path_length: bool) -> None:
        self.width = width
        self.num_codes = num_codes
        self.argument = argument
        self.in_path_length = in_path_length

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        ws = self.argument.of(args, kwargs)
        if is_wide(ws, self.width, self.num_codes, "w"):
            warn_of_cut_gradient(ws, module.training and not self.in_path_length)
            return None
        return self.argument.replaced(args, kwargs, torch.cat(split_codes(ws, self.width, self.num_codes, "w"), dim=-1))


class StripCodes(Hook):
    """Before a module that turns a row of w into a style: take the codes off.

    Args:
        width: entries of w before the codes.
        num_codes: K.
        argument: the row, its entries in dimension `dim`; one of the old width passes as it is.
        dim: 1, or -1 for the last.
    """

    def __init__(self, width: int, num_codes: int, argument: Argument, dim: int = -1) -> None:
        self.width = width
        self.num_codes = num_codes
        self.argument = argument
        self.dim = dim

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        row = self.argument.of(args, kwargs)
        if not is_wide(row, self.width, self.num_codes, "w", self.dim):
            return None
        return self.argument.replaced(args, kwargs, without_codes(row, self.width, self.dim))


class Constrict(Hook):
    """Behind the module that makes the features: constrict them by its own layer, `module.constriction`.

    Args:
        start, stop: columns of w, after its own entries, that hold the codes that act here.
        width: entries of w before the codes.
        argument: the row of w that the module was called with, [N, width + K], or several, of which the last counts.
        in_path_length: whether gradients reach the codes in training mode.
    """

    def __init__(self, start: int, stop: int, width: int, argument: Argument, in_path_length: bool) -> None:
        self.start = start
        self.stop = stop
        self.width = width
        self.argument = argument
        self.in_path_length = in_path_length

    def codes(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Codes [N, k] of this layer in a call of `module` with `args` and `kwargs`; zeros where w has none."""
        row = self.argument.of(args, kwargs)
        row = row[:, -1] if row.ndim == 3 else row
        if row.shape[1] == self.width:
            return cast(Tensor, row.new_zeros(len(row), self.stop - self.start))
        codes = row[:, self.width + self.start : self.width + self.stop]
        return cast(Tensor, codes.detach() if module.training and not self.in_path_length else codes)

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        codes = self.codes(module, args, kwargs)
        layer = getattr(module, LAYER)
        if not isinstance(output, tuple):
            return layer(output, codes)
        return layer(output[0], codes), *output[1:]


class InFlight:
    """Codes on their way through a network of no known conventions, or features on their way out of a block.

    Of each thread its own, empty between passes, and in copies and pickles. `torch.compile` can't see into what belongs
    to a thread, so while it traces, a plain attribute takes its place.
    """

    def __init__(self) -> None:
        self._of_thread = threading.local()
        self._traced: Tensor | None = None

    def __reduce__(self) -> tuple[type[InFlight], tuple[()]]:
        return InFlight, ()

    def put(self, value: Tensor | None) -> None:
        """Hold `value` for this thread; None lets go."""
        if torch.compiler.is_compiling():
            self._traced = value
        else:
            self._of_thread.value = value

    def get(self) -> Tensor | None:
        """What this thread put last, or None."""
        if torch.compiler.is_compiling():
            return self._traced
        return cast("Tensor | None", getattr(self._of_thread, "value", None))


class TakeCodes(Hook):
    """Before a network of no known conventions: strip the codes off its argument, and put them in flight.

    Args:
        flight: shared with the layers.
        width: entries before the codes.
        num_codes: K.
        what: name of the argument in errors.
        argument: [N, width + K] or [N, L, width + K], of which the first row counts.
        in_path_length: whether gradients reach the codes in training mode.
    """

    def __init__(
        self, flight: InFlight, width: int, num_codes: int, what: str, argument: Argument, in_path_length: bool
    ) -> None:
        self.flight = flight
        self.width = width
        self.num_codes = num_codes
        self.what = what
        self.argument = argument
        self.in_path_length = in_path_length

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wide = self.argument.of(args, kwargs)
        latent, codes = split_codes(wide, self.width, self.num_codes, self.what)
        codes = codes[:, 0] if codes.ndim == 3 else codes
        cut = module.training and not self.in_path_length
        warn_of_cut_gradient(wide, cut)
        self.flight.put(codes.detach() if cut else codes)
        return self.argument.replaced(args, kwargs, latent)


class Forget(Hook):
    """Behind a network: drop what is left in flight, also after an error."""

    def __init__(self, flight: InFlight) -> None:
        self.flight = flight

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        self.flight.put(None)


class ConstrictInFlight(Hook):
    """As `Constrict`, by the codes in flight.

    Args:
        flight: holds the codes of the pass.
        start, stop: columns of the codes that act here.
    """

    def __init__(self, flight: InFlight, start: int, stop: int) -> None:
        self.flight = flight
        self.start = start
        self.stop = stop

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        codes = self.flight.get()
        if codes is None:
            raise RuntimeError(
                "a constricted layer ran outside its generator's forward pass, so that there are no codes: run the "
                "whole generator (or its synthesis network), without checkpointing inside it, or "
                "detach_spatial_constriction first"
            )
        layer = getattr(module, LAYER)
        if not isinstance(output, tuple):
            return layer(output, codes[:, self.start : self.stop])
        return layer(output[0], codes[:, self.start : self.stop]), *output[1:]


class ConstrictInput(Constrict):
    """Before a module that only reads the features, such as ToRGB: constrict them, and keep them in flight.

    Args:
        features: the argument that holds them.
        flight: shared with `ReplaceFeatures`.
        others: as `Constrict`.
    """

    def __init__(self, features: Argument, flight: InFlight, *others: Any) -> None:
        super().__init__(*others)
        self.features = features
        self.flight = flight

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # type: ignore[override]
        features = getattr(module, LAYER)(self.features.of(args, kwargs), self.codes(module, args, kwargs))
        self.flight.put(features)
        return self.features.replaced(args, kwargs, features)


class ReplaceFeatures(Hook):
    """Behind the block around such a module: return the constricted features in place of the block's first output.

    Args:
        flight: holds the features from the module to here.
    """

    def __init__(self, flight: InFlight) -> None:
        self.flight = flight

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        features = self.flight.get()
        self.flight.put(None)
        return features, *output[1:]


class ShieldFromTruncation(Hook):
    """Before a generator that truncates by itself: give the truncation's centre the codes of the sample.

    `centre + psi * (w - centre)` then leaves the codes alone.

    Args:
        width: entries of w before the codes.
        num_codes: K.
        styles: the generator's argument of z or w, a list of which the first counts.
        centre: its argument of the centre, [..., width] or wide, None for no truncation.
        is_latent: its argument that tells whether `styles` are w.
    """

    def __init__(self, width: int, num_codes: int, styles: Argument, centre: Argument, is_latent: Argument) -> None:
        self.width = width
        self.num_codes = num_codes
        self.styles = styles
        self.centre = centre
        self.is_latent = is_latent

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = len(args) > self.centre.position or self.centre.name in kwargs
        centre = self.centre.of(args, kwargs) if given else None
        if centre is None:
            return None
        latent = self.styles.of(args, kwargs)[0]
        _, codes = split_codes(latent, self.width, self.num_codes, "w")
        centre = centre[..., : self.width].expand(*latent.shape[:-1], self.width)
        is_latent = self.is_latent.name in kwargs or len(args) > self.is_latent.position
        narrow = is_latent and self.is_latent.of(args, kwargs) and latent.shape[-1] == self.width
        return self.centre.replaced(args, kwargs, centre if narrow else torch.cat([centre, codes], dim=-1))


def warn_of_cut_gradient(latent: Tensor, cut: bool) -> None:
    """Warn where the gradient of codes that somebody optimises is cut.

    Args:
        latent: w with codes; one that a network made is no leaf of autograd, and nobody optimises it.
        cut: whether the codes' gradient is.
    """
    if cut and not torch.compiler.is_compiling() and latent.is_leaf and latent.requires_grad:
        warnings.warn(
            "in training mode no gradient reaches the codes in w, which keeps path-length regularisation off them: to "
            "optimise codes, call eval() on the generator or attach with codes_in_path_length=True",
            stacklevel=4,
        )


class CodedMapping(nn.Module):
    """A mapping network that lets codes pass: z [N, z_dim + K] -> w [N, (L,) w_dim + K]; codes are not truncated.

    It shares parameters, buffers and parts with the network inside, under the same names, and has its attributes. Read
    from here, `w_avg`, `z_dim` and `w_dim` are wide (the codes' average is 0), so that foreign arithmetic with wide w,
    such as `w_avg + psi * (w - w_avg)`, works; what is assigned to `w_avg` is taken without codes.

    Args:
        inner: the network, whose first argument is z.
        z_dim: width of z before the codes.
        w_dim: width of w before the codes.
        num_codes: K.
    """

    _SHARED = ("_parameters", "_buffers", "_non_persistent_buffers_set", "_modules")

    def __init__(self, inner: nn.Module, z_dim: int, w_dim: int, num_codes: int) -> None:
        training = inner.training
        self.__dict__["inner"] = inner  # no part of its own: its names must stay as they are
        super().__init__()
        for table in self._SHARED:
            self.__dict__[table] = inner.__dict__[table]
        self.widths = {"z_dim": z_dim, "w_dim": w_dim}
        self.num_codes = num_codes
        self.argument = argument(inner)
        self.training = training

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """w [N, (L,) w_dim + K] of the inner network's `args` and `kwargs`, among them z [N, z_dim + K] or [N, z_dim].

        Raises:
            ValueError: z of another width.
        """
        z, codes = split_codes(self.argument.of(args, kwargs), self.widths["z_dim"], self.num_codes, "z")
        args, kwargs = self.argument.replaced(args, kwargs, z)
        return join_codes(self.inner(*args, **kwargs), codes)

    @property
    def w_avg(self) -> Tensor:
        """The average of w with entries 0 for the codes, [w_dim + K]; a copy."""
        average = self._buffers["w_avg"]
        assert average is not None
        return torch.cat([average, average.new_zeros(*average.shape[:-1], self.num_codes)], dim=-1)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            value = getattr(self.__dict__["inner"], name)
            return value + self.num_codes if name in self.widths else value

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "w_avg":
            value = value[..., : self.widths["w_dim"]]
        elif name == "training":
            self.__dict__["inner"].training = value
        super().__setattr__(name, value)

    def _replicate_for_data_parallel(self) -> Any:
        replica = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        replica.__dict__["inner"] = self.inner._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        for table in self._SHARED:
            replica.inner.__dict__[table] = replica.__dict__[table]
        return replica

    inner: nn.Module


def observe(layers: list[nn.Module], see: Callable[[int, Tensor], None]) -> list[torch.utils.hooks.RemovableHandle]:
    """Call `see(index, features)` with what each of `layers` gets in this thread, until the handles are removed."""
    thread = threading.get_ident()

    def hook(index: int) -> Callable[..., None]:
        def called(module: nn.Module, args: tuple[Any, ...]) -> None:
            if threading.get_ident() == thread:
                see(index, args[0])

        return called

    return [layer.register_forward_pre_hook(hook(index)) for index, layer in enumerate(layers)]
