"""The list of modules that a generator is made of, as text (`[Const-512, ResConv-up-1, ...]`) and as typed records."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast

Resample: TypeAlias = Literal["id", "up", "down"]
START_SIZE = 4

KNOWN_MODULES = (
    "Const-n",
    "Conv-{id,up,down}-n",
    "ResConv-{id,up,down}-n",
    "Noise-n",
    "C_spgroup-J-K",
    "C_spgroup_sm-K",
    "C_global-K",
)


def _check_positive(module: str, **sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} of a {module} module must be at least 1, got {value}")


@dataclass(frozen=True)
class ConstSpec:
    """`Const-n`: the learned 4x4 map of `channels` channels that every image starts from."""

    channels: int

    def __post_init__(self) -> None:
        _check_positive("Const", channels=self.channels)

    def __str__(self) -> str:
        return f"Const-{self.channels}"


@dataclass(frozen=True)
class ConvSpec:
    """`Conv-{id,up,down}-n` and `ResConv-{id,up,down}-n`: `layers` 3x3 convolutions, each with its resampling."""

    resample: Resample
    layers: int
    residual: bool = False

    def __post_init__(self) -> None:
        _check_positive("Conv", layers=self.layers)

    def __str__(self) -> str:
        return f"{'ResConv' if self.residual else 'Conv'}-{self.resample}-{self.layers}"


@dataclass(frozen=True)
class NoiseSpec:
    """`Noise-n`: `layers` 3x3 convolutions with a noise map added before the activation."""

    layers: int

    def __post_init__(self) -> None:
        _check_positive("Noise", layers=self.layers)

    def __str__(self) -> str:
        return f"Noise-{self.layers}"


@dataclass(frozen=True)
class SpatialSpec:
    """`C_spgroup-J-K`: spatial constriction of `num_codes` codes with `num_rects` rectangles each."""

    num_rects: int
    num_codes: int

    def __post_init__(self) -> None:
        _check_positive("C_spgroup", num_rects=self.num_rects, num_codes=self.num_codes)

    def __str__(self) -> str:
        return f"C_spgroup-{self.num_rects}-{self.num_codes}"


@dataclass(frozen=True)
class SoftmaxSpec:
    """`C_spgroup_sm-K`: the softmax-mask ablation of spatial constriction."""

    num_codes: int

    def __post_init__(self) -> None:
        _check_positive("C_spgroup_sm", num_codes=self.num_codes)

    def __str__(self) -> str:
        return f"C_spgroup_sm-{self.num_codes}"


@dataclass(frozen=True)
class GlobalSpec:
    """`C_global-K`: one 3x3 convolution modulated by `num_codes` codes, everywhere alike."""

    num_codes: int

    def __post_init__(self) -> None:
        _check_positive("C_global", num_codes=self.num_codes)

    def __str__(self) -> str:
        return f"C_global-{self.num_codes}"


ModuleSpec: TypeAlias = ConstSpec | ConvSpec | NoiseSpec | SpatialSpec | SoftmaxSpec | GlobalSpec
CODE_SPECS = (SpatialSpec, SoftmaxSpec, GlobalSpec)
_SPECS = (ConstSpec, ConvSpec, NoiseSpec, *CODE_SPECS)

# Every form of a module's name, and what its parts make. The last part is the size.
_FORMS: tuple[tuple[str, Callable[..., ModuleSpec]], ...] = (
    (r"Const-(\d+)", lambda n: ConstSpec(int(n))),
    (r"(Res)?Conv-(id|up|down)-(\d+)", lambda res, kind, n: ConvSpec(cast(Resample, kind), int(n), res is not None)),
    (r"Noise-(\d+)", lambda n: NoiseSpec(int(n))),
    (r"C_spgroup-(\d+)-(\d+)", lambda j, k: SpatialSpec(int(j), int(k))),
    (r"C_spgroup_sm-(\d+)", lambda k: SoftmaxSpec(int(k))),
    (r"C_global-(\d+)", lambda k: GlobalSpec(int(k))),
)


def _parse_module(name: str) -> ModuleSpec | None:
    """One module, or None for a module of size 0."""
    for form, make in _FORMS:
        match = re.fullmatch(form, name, re.ASCII)
        if match:
            return make(*match.groups()) if int(match.groups()[-1]) > 0 else None
    raise ValueError(f"unknown module {name!r} in the module list; known are {', '.join(KNOWN_MODULES)}")


def _check_order(specs: Sequence[ModuleSpec]) -> None:
    starts = [index for index, spec in enumerate(specs) if isinstance(spec, ConstSpec)]
    if starts != [0]:
        raise ValueError(f"a module list must start with its one Const-n, got {format_module_list(specs)}")


def parse_module_list(modules: str | Iterable[str | ModuleSpec]) -> tuple[ModuleSpec, ...]:
    """Read a module list.

    Args:
        modules: text such as `"[Const-512, ResConv-up-1, C_spgroup-4-5]"` (the brackets may be missing), or its
            modules one by one, as text or as typed records. Modules of size 0 are dropped and get no index, as in
            the authors' program.

    Returns:
        One typed record a module, the first of which is the `ConstSpec`.

    Raises:
        ValueError: an unknown module (the message lists the known ones), a size that makes no sense, or a list that
            does not start with its only Const-n.

    >>> parse_module_list("[Const-512, ResConv-up-1, C_spgroup-4-5]")[2]
    SpatialSpec(num_rects=4, num_codes=5)

    Source: SPEC of the authors' module lists.
    """
    if isinstance(modules, str):
        text = modules.strip()
        modules = (text[1:-1] if text.startswith("[") and text.endswith("]") else text).split(",")
    parsed = (spec if isinstance(spec, _SPECS) else _parse_module(str(spec).strip()) for spec in modules)
    specs = tuple(spec for spec in parsed if spec is not None)
    _check_order(specs)
    return specs


def format_module_list(specs: Iterable[ModuleSpec]) -> str:
    """The text that `parse_module_list` reads as `specs`.

    >>> format_module_list([ConstSpec(512), ConvSpec("up", 1, residual=True), GlobalSpec(2)])
    '[Const-512, ResConv-up-1, C_global-2]'
    """
    return f"[{', '.join(map(str, specs))}]"


def module_sizes(specs: Sequence[ModuleSpec]) -> tuple[int, ...]:
    """Height (and width) in pixels of the features after each module.

    Args:
        specs: the modules, from the first.

    Raises:
        ValueError: the modules scale the features down to less than one pixel.

    >>> module_sizes(parse_module_list("[Const-512, ResConv-up-1, C_spgroup-4-5, Conv-up-2]"))
    (4, 8, 8, 32)
    """
    sizes: list[int] = []
    size = START_SIZE
    for spec in specs:
        if isinstance(spec, ConvSpec) and spec.resample == "up":
            size *= 2**spec.layers
        elif isinstance(spec, ConvSpec) and spec.resample == "down":
            size //= 2**spec.layers
        if size < 1:
            raise ValueError(f"{spec} scales {sizes[-1]}x{sizes[-1]} features down to nothing")
        sizes.append(size)
    return tuple(sizes)


def check_resolution(specs: Sequence[ModuleSpec], resolution: int) -> None:
    """Raise a ValueError unless the up and down steps of `specs` lead from 4x4 to the resolution."""
    size = module_sizes(specs)[-1]
    if size != resolution:
        raise ValueError(
            f"the up and down steps of the module list lead from {START_SIZE}x{START_SIZE} to {size}x{size} pixels, "
            f"but the resolution is {resolution}: {format_module_list(specs)}"
        )


def num_codes(spec: ModuleSpec) -> int:
    """How many codes the module of a record `spec` reads."""
    return spec.num_codes if isinstance(spec, CODE_SPECS) else 0


MASKS = ("sc", "softmax", "none")
_DEFAULT_RECTS = 4


def with_constriction(
    specs: Sequence[ModuleSpec], mask: str | None = None, num_rects: int | None = None, num_codes: int | None = None
) -> tuple[ModuleSpec, ...]:
    """A module list with other modules for its codes; the paper's ablations (Sec. 4.3).

    Args:
        specs: the modules.
        mask: "sc" (spatial constriction), "softmax" (its softmax-mask ablation) or "none" (codes act everywhere), for
            every module that reads codes; None keeps each as it is.
        num_rects: rectangles J of every spatial constriction; None keeps those of each, or takes 4 for new ones.
        num_codes: codes K of all modules together, which share them as evenly as can be, the first ones taking what is
            left over; one that gets none is dropped. None keeps those of each.

    Raises:
        ValueError: an unknown mask, numbers below 1, rectangles where no module has any, or codes without a module.

    >>> specs = parse_module_list("[Const-64, C_spgroup-4-5, ResConv-up-1, C_spgroup-4-5]")
    >>> format_module_list(with_constriction(specs, num_rects=2, num_codes=3))
    '[Const-64, C_spgroup-2-2, ResConv-up-1, C_spgroup-2-1]'
    >>> format_module_list(with_constriction(specs, mask="none"))
    '[Const-64, C_global-5, ResConv-up-1, C_global-5]'
    """
    if mask is not None and mask not in MASKS:
        raise ValueError(f"mask must be one of {', '.join(MASKS)}, got {mask!r}")
    if num_codes is not None and num_codes < 1:
        raise ValueError(f"num_codes must be at least 1, got {num_codes}")
    if (mask, num_rects, num_codes) == (None, None, None):
        return tuple(specs)
    readers = [spec for spec in specs if isinstance(spec, CODE_SPECS)]
    if not readers:
        raise ValueError(f"no module reads codes: {format_module_list(specs)}")
    sizes = [spec.num_codes for spec in readers]
    if num_codes is not None:
        share, rest = divmod(num_codes, len(readers))
        sizes = [share + (rank < rest) for rank in range(len(readers))]
    left = iter(sizes)
    changed = [
        (_constricted(spec, mask, num_rects, next(left)) if isinstance(spec, CODE_SPECS) else spec) for spec in specs
    ]
    result = tuple(spec for spec in changed if spec is not None)
    if num_rects is not None and not any(isinstance(spec, SpatialSpec) for spec in result):
        raise ValueError(f"no module has {num_rects} rectangles: {format_module_list(result)}")
    return result


def _constricted(
    spec: SpatialSpec | SoftmaxSpec | GlobalSpec, mask: str | None, num_rects: int | None, size: int
) -> ModuleSpec | None:
    if size == 0:
        return None
    if mask == "none" or (mask is None and isinstance(spec, GlobalSpec)):
        return GlobalSpec(size)
    if mask == "softmax" or (mask is None and isinstance(spec, SoftmaxSpec)):
        return SoftmaxSpec(size)
    before = spec.num_rects if isinstance(spec, SpatialSpec) else _DEFAULT_RECTS
    return SpatialSpec(before if num_rects is None else num_rects, size)
