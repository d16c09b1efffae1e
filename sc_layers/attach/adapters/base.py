"""What `sc_layers.attach` needs to know about a code base: one `Adapter` each, in `sc_layers.integrations`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..hooks import AppendCodes, Constrict, Forget, InFlight, TakeCodes, add_hook, add_pre_hook


@dataclass(frozen=True)
class Site:
    """A place in a generator where features can be constricted.

    Args:
        name: what the user calls it.
        module: dotted path of the module that owns the layer.
        channels: of its features.
        size: height and width of its features.
        resolution: the nominal one, by which `resolutions` chooses.
        margin: pixels a side by which the features exceed the picture.
    """

    name: str
    module: str
    channels: int
    size: tuple[int, int]
    resolution: int
    margin: int = 0


@dataclass
class Attachment:
    """How spatial constriction is attached to a generator; the generator's attribute `spatial_constriction`.

    Args:
        adapter: name of the code base.
        num_codes: codes of all layers together, K.
        layers: names of the places, coarse to fine, as `attach_spatial_constriction` takes them.
        modules: dotted paths of the modules that own the layers.
        margins: pixels a side by which the features of each exceed the picture.
        z_dim: width of z before the codes.
        w_dim: width of w before the codes.
        num_rects: as given to `attach_spatial_constriction`.
        codes_per_group: likewise.
        codes_in_path_length: likewise.
        flight: shared by the hooks.
    """

    adapter: str
    num_codes: int
    layers: tuple[str, ...]
    modules: tuple[str, ...]
    margins: tuple[int, ...]
    z_dim: int
    w_dim: int
    num_rects: int
    codes_per_group: int
    codes_in_path_length: bool
    flight: InFlight

    def arguments(self) -> dict[str, Any]:
        """Plain arguments with which `attach_spatial_constriction` builds the same structure on a fresh generator."""
        return {
            "num_codes": self.num_codes,
            "layers": list(self.layers),
            "num_rects": self.num_rects,
            "codes_per_group": self.codes_per_group,
            "codes_in_path_length": self.codes_in_path_length,
        }

    def groups(self) -> list[tuple[int, int]]:
        """First and last+1 code of every layer."""
        starts = range(0, self.num_codes, self.codes_per_group)
        return [(start, min(start + self.codes_per_group, self.num_codes)) for start in starts]


class Adapter(ABC):
    """A code base's conventions.

    `name` is that of its folder in `sc_layers.integrations`; `examples` describes in errors what it recognises.
    """

    name: str
    examples: str

    @abstractmethod
    def matches(self, generator: nn.Module) -> bool:
        """Whether this is a generator of the code base."""

    @abstractmethod
    def sites(self, generator: nn.Module) -> list[Site]:
        """Every place, coarse to fine."""

    @abstractmethod
    def widths(self, generator: nn.Module) -> tuple[int, int]:
        """Widths of z and w."""

    @abstractmethod
    def install(self, generator: nn.Module, record: Attachment) -> None:
        """Add the hooks around mapping and synthesis, and widen the attributes that tell the widths."""

    def add_layer_hooks(self, generator: nn.Module, module: str, flight: InFlight, start: int, stop: int) -> None:
        """Let the layer of `module` act; by default on what `module` returns."""
        add_hook(generator.get_submodule(module), Constrict(flight, start, stop))

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:  # noqa: B027
        """Restore the attributes that `install` changed, if any; hooks and layers are removed elsewhere."""

    @abstractmethod
    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        """Wide w of wide z [N, z_dim + K] and classes [N, c_dim]."""

    @abstractmethod
    def to_images(self, generator: nn.Module, ws: Tensor, noise_mode: str) -> Tensor:
        """Images [N, C, H, W] of wide w; `noise_mode` "const" fixes the noise."""


def check_noise_mode(noise_mode: str, *known: str) -> None:
    if noise_mode not in known:
        raise ValueError(f"noise_mode must be {' or '.join(known)} for this code base, got {noise_mode!r}")


def add_mapping_hooks(mapping: nn.Module, record: Attachment) -> None:
    """Let the codes pass a mapping network by."""
    flight = InFlight()
    add_pre_hook(mapping, TakeCodes(flight, record.z_dim, record.num_codes, "z", detach_in_training=False))
    add_hook(mapping, AppendCodes(flight), always=True)


def add_synthesis_hooks(synthesis: nn.Module, record: Attachment, what: str = "w") -> None:
    """Hand the codes that come with w to the layers of a synthesis network."""
    width = record.w_dim
    detach = not record.codes_in_path_length
    add_pre_hook(synthesis, TakeCodes(record.flight, width, record.num_codes, what, detach))
    add_hook(synthesis, Forget(record.flight), always=True)


class TwoPartAdapter(Adapter):
    """Generators with modules `mapping(z, c, truncation_psi=...)` and `synthesis(ws, noise_mode=...)`.

    `marker` is an attribute by which the synthesis network is recognised.
    """

    marker: str

    def matches(self, generator: nn.Module) -> bool:
        parts = ("mapping", "synthesis", "z_dim", "w_dim", "num_ws")
        return all(hasattr(generator, part) for part in parts) and hasattr(generator.synthesis, self.marker)

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        return cast(int, generator.z_dim), cast(int, generator.w_dim)

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        add_mapping_hooks(net.mapping, record)
        add_synthesis_hooks(net.synthesis, record)
        net.z_dim = record.z_dim + record.num_codes
        net.w_dim = record.w_dim + record.num_codes
        # The arguments of persistent classes describe the network: whoever rebuilds it from them must attach, too.
        if hasattr(net, "_init_kwargs"):
            net._init_kwargs["spatial_constriction"] = record.arguments()

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        net.z_dim, net.w_dim = record.z_dim, record.w_dim
        if hasattr(net, "_init_kwargs"):
            net._init_kwargs.pop("spatial_constriction", None)

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        net = cast(Any, generator)
        return cast(Tensor, net.mapping(z, c, truncation_psi=truncation_psi))

    def to_images(self, generator: nn.Module, ws: Tensor, noise_mode: str) -> Tensor:
        return cast(Tensor, cast(Any, generator).synthesis(ws, noise_mode=noise_mode))


def feature_shapes(generator: nn.Module, names: Sequence[str], inputs: Sequence[Any]) -> dict[str, torch.Size]:
    """Run `generator(*inputs)` once, without leaving a trace, and see what shapes the named modules return.

    Raises:
        ValueError: no such module, or one that returns no features [N, C, H, W], or that never ran.
    """
    modules = dict(generator.named_modules())
    shapes: dict[str, torch.Size] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            features = output[0] if isinstance(output, tuple) else output
            if not isinstance(features, Tensor) or features.ndim != 4:
                raise ValueError(f"module {name!r} returns no features [N, C, H, W]")
            shapes[name] = features.shape

        return hook

    missing = [name for name in names if name not in modules]
    if missing:
        known = ", ".join(filter(None, modules))
        raise ValueError(f"the generator has no module {', '.join(missing)}; its modules: {known}")
    handles = [modules[name].register_forward_hook(watch(name)) for name in names]
    training = {module: module.training for module in modules.values()}
    try:
        with torch.no_grad(), torch.random.fork_rng():
            generator.eval()(*inputs)
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in training.items():
            module.training = mode
    unused = [name for name in names if name not in shapes]
    if unused:
        raise ValueError(f"module {', '.join(unused)} does not run in the generator's forward pass")
    return shapes


def _zeros(generator: nn.Module, width: int) -> Tensor:
    parameter = next(generator.parameters())
    return torch.zeros(1, width, device=parameter.device)


def _named_sites(generator: nn.Module, shapes: dict[str, torch.Size]) -> list[Site]:
    return [
        Site(name, _owner(generator, name), shape[1], (shape[2], shape[3]), shape[2]) for name, shape in shapes.items()
    ]


def _owner(generator: nn.Module, name: str) -> str:
    """The module that may own the layer: a sequence would run it as its next element, so the last element does."""
    module = generator.get_submodule(name)
    while isinstance(module, nn.Sequential) and len(module):
        name, module = f"{name}.{len(module) - 1}", module[-1]
    return name


class NamedLayersAdapter(Adapter):
    """Any module that maps z [N, z_dim] to images, given the names of the modules that return its features."""

    name = "named-layers"
    examples = "any module that takes z, with layers=[modules that return features] and z_dim"

    def __init__(self, layers: Sequence[str], z_dim: int) -> None:
        self.layers = layers
        self.z_dim = z_dim

    def matches(self, generator: nn.Module) -> bool:
        return True

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        return self.z_dim, self.z_dim

    def sites(self, generator: nn.Module) -> list[Site]:
        return _named_sites(generator, feature_shapes(generator, self.layers, [_zeros(generator, self.z_dim)]))

    def install(self, generator: nn.Module, record: Attachment) -> None:
        add_synthesis_hooks(generator, record, what="z")

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        if truncation_psi != 1:
            raise ValueError(f"a generator attached by the names of its layers has no truncation, got {truncation_psi}")
        return z

    def to_images(self, generator: nn.Module, ws: Tensor, noise_mode: str) -> Tensor:
        check_noise_mode(noise_mode, "const")
        return cast(Tensor, generator(ws))


class NamedTwoPartAdapter(TwoPartAdapter):
    """Generators in two parts whose feature layers have unfamiliar names, such as forks of StyleGAN2 and 3."""

    name = "named-two-part"
    examples = "any module with mapping, synthesis, z_dim, w_dim and num_ws, with layers=[modules that return features]"
    marker = "forward"

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = layers

    def sites(self, generator: nn.Module) -> list[Site]:
        c = _zeros(generator, getattr(generator, "c_dim", 0))
        z = _zeros(generator, cast(int, generator.z_dim))
        return _named_sites(generator, feature_shapes(generator, self.layers, [z, c]))
