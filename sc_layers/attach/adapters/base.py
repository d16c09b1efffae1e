"""What attaching needs to know about a code base: one `Adapter` each."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..attachment import Attachment
from ..hooks import (
    CodedMapping,
    Constrict,
    ConstrictInFlight,
    Forget,
    InFlight,
    StripCodes,
    TakeCodes,
    WidenW,
    add_hook,
    add_pre_hook,
    argument,
)


@dataclass(frozen=True)
class Site:
    """A place in a generator where features can be constricted.

    Args:
        name: what the user calls it.
        module: dotted path of the module that owns the layer.
        channels: number of channels of its features.
        size: height and width of its features.
        resolution: the nominal one, by which `resolutions` chooses.
        row: index of the row of w that its module gets.
        margin: pixels a side by which the features exceed the picture.
    """

    name: str
    module: str
    channels: int
    size: tuple[int, int]
    resolution: int
    row: int = 0
    margin: int = 0


class Adapter(ABC):
    """A code base's conventions.

    `name` is that of its folder in `integrations/`; `examples` describes in errors what it recognises.
    """

    name: str
    examples: str

    @abstractmethod
    def matches(self, generator: nn.Module) -> bool:
        """Whether `generator` is one of the code base."""

    @abstractmethod
    def sites(self, generator: nn.Module) -> list[Site]:
        """Every place of `generator` where features can be constricted, coarse to fine."""

    @abstractmethod
    def widths(self, generator: nn.Module) -> tuple[int, int]:
        """Widths of z and w of `generator`, before the codes."""

    @abstractmethod
    def install(self, generator: nn.Module, record: Attachment) -> None:
        """Let the codes pass to the layers, and widen the attributes that tell the widths.

        Args:
            generator: has the layers already.
            record: what this attachment keeps.
        """

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:  # noqa: B027
        """Restore the attributes that `install` changed, if any; hooks and layers are removed elsewhere.

        Args:
            generator: attached.
            record: what its attachment keeps.
        """

    def copies(self, record: Attachment) -> list[list[str]]:
        """Dotted paths of the modules that own each layer of `record` and its copies; `to_images` runs the last."""
        return [[path] for path in record.modules]

    def run_on(self, generator: nn.Module, z: Tensor) -> None:
        """Run `generator` on z [N, z_dim + K], as far as its layers need, with any class."""
        number = int(getattr(generator, "c_dim", 0))
        c = torch.eye(number, device=z.device)[torch.arange(len(z)) % number] if number else z.new_zeros(len(z), 0)
        self.to_images(generator, self.to_w(generator, z, c, 1.0), c, "const")

    def style_weights(self, generator: nn.Module) -> dict[int, Tensor]:
        """Weights [outputs, w_dim] of the maps from w to styles, by the row of w that they read, one for each row.

        Rows that no convolution before the colours reads have the weight of the last colours, if any.

        Args:
            generator: attached or not.

        Raises:
            ValueError: it is not known where the code base keeps them.
        """
        raise ValueError(f"it is not known where generators of {self.name} keep the weights of their styles")

    @abstractmethod
    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        """Map wide z to wide w.

        Args:
            generator: attached.
            z: [N, z_dim + K].
            c: classes or cameras [N, c_dim]; None for networks without.
            truncation_psi: pulls w towards its average, 1 not at all; never acts on codes.

        Returns:
            [N, L, w_dim + K], or z itself where the network has no w.

        Raises:
            ValueError: the code base cannot truncate here.
        """

    @abstractmethod
    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        """Make images of wide w.

        Args:
            generator: attached.
            ws: [N, L, w_dim + K].
            c: classes or cameras [N, c_dim]; None for networks whose synthesis reads w alone.
            noise_mode: "const", which fixes the noise, or another that the code base has.

        Returns:
            [N, C, H, W].

        Raises:
            ValueError: a noise mode that the code base has not, or no camera where it needs one.
        """


def check_noise_mode(noise_mode: str, *known: str) -> None:
    """Raise a ValueError where `noise_mode` is none of the `known` ones of a code base."""
    if noise_mode not in known:
        raise ValueError(f"noise_mode must be {' or '.join(known)} for this code base, got {noise_mode!r}")


def pass_codes_by(parent: nn.Module, name: str, record: Attachment) -> None:
    """Wrap the mapping network in the attribute `name` of `parent`, so that the codes of `record` pass it."""
    inner = getattr(parent, name)
    setattr(parent, name, CodedMapping(inner, record.z_dim, record.w_dim, record.num_codes))


def unwrap(parent: nn.Module, name: str) -> None:
    """Undo `pass_codes_by` for the attribute `name` of `parent`."""
    setattr(parent, name, getattr(parent, name).inner)


def add_layer_hooks(generator: nn.Module, record: Attachment, rows: Mapping[str, str]) -> None:
    """Let every layer read its codes from the row of w that its module gets.

    Args:
        generator: has the layers already.
        record: what this attachment keeps.
        rows: name of the argument that holds the row (or rows, of which the last counts), by the module's path.
    """
    for path, (start, stop) in zip(record.modules, record.groups(), strict=True):
        module = generator.get_submodule(path)
        row = argument(module, rows[path])
        add_hook(module, Constrict(start, stop, record.w_dim, row, record.codes_in_path_length))


def strip_styles(network: nn.Module, record: Attachment, names: Sequence[str] = ("affine",)) -> None:
    """Take the codes off before every part of a network that makes a style of a row of w.

    Args:
        network: all parts of it are looked at.
        record: what this attachment keeps.
        names: attributes under which such parts are known.
    """
    for module in network.modules():
        for name in names:
            part = getattr(module, name, None)
            if isinstance(part, nn.Module):
                add_pre_hook(part, StripCodes(record.w_dim, record.num_codes, argument(part)))


def tell_width(network: nn.Module, old: int, new: int) -> None:
    """Let every part of `network` that compares w with its attribute `w_dim` expect the width `new`, not `old`."""
    for module in network.modules():
        if vars(module).get("w_dim") == old:
            module.w_dim = new  # type: ignore[assignment]


def let_wide_w_pass(network: nn.Module, record: Attachment, name: str | None = None) -> None:
    """Let wide w through a network whose parts make styles of it by parts named `affine`.

    Args:
        network: synthesis network.
        record: what this attachment keeps.
        name: name of the argument that is w; None takes the first one.
    """
    ws = argument(network, name)
    add_pre_hook(network, WidenW(record.w_dim, record.num_codes, ws, record.codes_in_path_length))
    strip_styles(network, record)
    tell_width(network, record.w_dim, record.w_dim + record.num_codes)


def widen_arguments(generator: nn.Module, record: Attachment) -> None:
    """Let `generator` tell the widths of `record` with codes and, where its class records its arguments, `record`."""
    net = cast(Any, generator)
    net.z_dim = record.z_dim + record.num_codes
    if getattr(net, "w_dim", None) == record.w_dim:  # FastGAN's says 0, whatever w is
        net.w_dim = record.w_dim + record.num_codes
    # The arguments of persistent classes describe the network: whoever rebuilds it from them must attach, too.
    if hasattr(net, "_init_kwargs"):
        net._init_kwargs["spatial_constriction"] = record.arguments()


def narrow_arguments(generator: nn.Module, record: Attachment) -> None:
    """Undo `widen_arguments` of this `record` on `generator`."""
    net = cast(Any, generator)
    net.z_dim = record.z_dim
    if getattr(net, "w_dim", None) == record.w_dim + record.num_codes:
        net.w_dim = record.w_dim
    if hasattr(net, "_init_kwargs"):
        net._init_kwargs.pop("spatial_constriction", None)


class TwoPartAdapter(Adapter):
    """Generators with modules `mapping(z, c, truncation_psi=...)` and `synthesis(ws, noise_mode=...)`.

    `marker` is an attribute by which the synthesis network is recognised; every part that makes a style of w is named
    `affine`; the modules that own layers get their row as `row_argument`.
    """

    marker: str
    row_argument: str

    def matches(self, generator: nn.Module) -> bool:
        parts = ("mapping", "synthesis", "z_dim", "w_dim", "num_ws")
        return all(hasattr(generator, part) for part in parts) and hasattr(generator.synthesis, self.marker)

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        return cast(int, generator.z_dim), cast(int, generator.w_dim)

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        pass_codes_by(net, "mapping", record)
        let_wide_w_pass(net.synthesis, record)
        add_layer_hooks(net, record, {path: self.row_argument_of(net.get_submodule(path)) for path in record.modules})
        widen_arguments(net, record)

    def row_argument_of(self, module: nn.Module) -> str:
        """Name of the argument in which a module that owns a layer gets its row of w."""
        return self.row_argument

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        unwrap(net, "mapping")
        tell_width(net.synthesis, record.w_dim + record.num_codes, record.w_dim)
        narrow_arguments(net, record)

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        net = cast(Any, generator)
        return cast(Tensor, net.mapping(z, c, truncation_psi=truncation_psi))

    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        return cast(Tensor, cast(Any, generator).synthesis(ws, noise_mode=noise_mode))

    def style_weights(self, generator: nn.Module) -> dict[int, Tensor]:
        readers = enumerate(self.style_readers(cast(Any, generator).synthesis))
        return {row: reader.affine.weight for row, reader in readers if hasattr(reader, "affine")}

    @abstractmethod
    def style_readers(self, synthesis: Any) -> list[Any]:
        """The modules of `synthesis` whose part `affine` reads each row of w, the first row first."""


def first_tensor(output: Any) -> Any:
    """The images in the `output` of a network: a tensor, the first of several, or the entry `image` of a dict."""
    if isinstance(output, dict):
        return output.get("image")
    return output[0] if isinstance(output, tuple) else output


def gpus_of(module: nn.Module) -> list[torch.device]:
    """The GPUs on which `module` has parameters: the only ones whose random numbers it can draw."""
    return list({parameter.device for parameter in module.parameters() if parameter.is_cuda})


@contextmanager
def untouched(generator: nn.Module) -> Iterator[None]:
    """Hold `generator` in evaluation mode without gradients; afterwards random numbers and modes are as before."""
    training = {module: module.training for module in generator.modules()}
    try:
        with torch.no_grad(), torch.random.fork_rng(gpus_of(generator)):
            generator.eval()
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


def _run_watched(
    generator: nn.Module, modules: Mapping[str, nn.Module], see: Callable[[str, Any], object], inputs: Sequence[Any]
) -> Any:
    """Run `generator(*inputs)` once, without leaving a trace; `see` gets the name and the features of each module.

    Raises:
        ValueError: inputs that the generator does not take.
    """

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            see(name, output[0] if isinstance(output, tuple) else output)

        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in modules.items()]
    try:
        with untouched(generator):
            return generator(*inputs)
    except TypeError as error:
        raise ValueError(
            f"{type(generator).__name__} can't be called with {len(inputs)} arguments ({error}): give example_inputs, "
            "a tuple of all its arguments for one sample, z first"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


def feature_shapes(generator: nn.Module, names: Sequence[str], inputs: Sequence[Any]) -> dict[str, torch.Size]:
    """Run `generator(*inputs)` once, without leaving a trace, and see what shapes the modules called `names` return.

    Raises:
        ValueError: no such module, or one that returns no features [N, C, H, W], or that never ran; inputs that the
            generator does not take.
    """
    modules = dict(generator.named_modules())
    shapes: dict[str, torch.Size] = {}

    def see(name: str, features: Any) -> None:
        if not isinstance(features, Tensor) or features.ndim != 4:
            raise ValueError(f"module {name!r} returns no features [N, C, H, W]")
        shapes[name] = features.shape

    missing = [name for name in names if name not in modules]
    if missing:
        known = ", ".join(filter(None, modules))
        raise ValueError(f"the generator has no module {', '.join(missing)}; its modules: {known}")
    _run_watched(generator, {name: modules[name] for name in names}, see, inputs)
    unused = [name for name in names if name not in shapes]
    if unused:
        raise ValueError(f"module {', '.join(unused)} does not run in the generator's forward pass")
    return shapes


def feature_names(generator: nn.Module, network: str, inputs: Sequence[Any]) -> list[str]:
    """Run `generator(*inputs)` once and see which parts of one of its networks return features, in this order.

    Args:
        generator: runs the network once.
        network: its dotted name. Its parts are its children, and those of lists among them.
        inputs: for one sample.

    Returns:
        Dotted names of the parts that return square features, but not the images.

    Raises:
        ValueError: inputs that the generator does not take.
    """
    shapes: dict[str, torch.Size] = {}

    def see(name: str, features: Any) -> None:
        if isinstance(features, Tensor) and features.ndim == 4 and features.shape[2] == features.shape[3]:
            shapes.pop(name, None)  # the last run of one that runs again counts
            shapes[name] = features.shape

    images = first_tensor(_run_watched(generator, _parts(generator.get_submodule(network), network), see, inputs))
    return [name for name, shape in shapes.items() if shape != images.shape]


def _parts(network: nn.Module, name: str) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for child, module in network.named_children():
        listed = isinstance(module, (nn.ModuleList, nn.ModuleDict))
        found |= _parts(module, f"{name}.{child}") if listed else {f"{name}.{child}": module}
    return found


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


def take_codes(network: nn.Module, generator: nn.Module, record: Attachment, width: int, what: str) -> None:
    """Let a network whose inner ways of w are unknown strip the codes off its first argument for all layers.

    Args:
        network: runs all layers during its forward.
        generator: `network`, or what it is a part of; has the layers already.
        record: what this attachment keeps.
        width: number of entries of the argument before the codes.
        what: the argument's name in errors, "z" or "w".
    """
    flight = InFlight()
    wide = argument(network)
    settings = (width, record.num_codes, what, wide, record.codes_in_path_length)
    add_pre_hook(network, TakeCodes(flight, *settings))
    add_hook(network, Forget(flight), always=True)
    for path, (start, stop) in zip(record.modules, record.groups(), strict=True):
        add_hook(generator.get_submodule(path), ConstrictInFlight(flight, start, stop))


class NamedLayersAdapter(Adapter):
    """Any module that maps z [N, z_dim] to images, given the names of the modules that return its features.

    Args:
        layers: these names.
        z_dim: width of z.
        example_inputs: all arguments of the module for one sample, z first; () stands for z alone.
    """

    name = "named-layers"
    examples = "any module that takes z, with layers=[modules that return features] and z_dim or example_inputs"

    def __init__(self, layers: Sequence[str], z_dim: int, example_inputs: Sequence[Any] = ()) -> None:
        self.layers = layers
        self.z_dim = z_dim
        self.example_inputs = example_inputs

    def matches(self, generator: nn.Module) -> bool:
        return True

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        return self.z_dim, self.z_dim

    def sites(self, generator: nn.Module) -> list[Site]:
        inputs = self.example_inputs or [_zeros(generator, self.z_dim)]
        return _named_sites(generator, feature_shapes(generator, self.layers, inputs))

    def install(self, generator: nn.Module, record: Attachment) -> None:
        take_codes(generator, generator, record, record.z_dim, "z")

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        if truncation_psi != 1:
            raise ValueError(f"a generator attached by the names of its layers has no truncation, got {truncation_psi}")
        return z

    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        check_noise_mode(noise_mode, "const")
        others = [_repeated(value, ws) for value in self.example_inputs[1:]]
        if others and c is not None and c.shape[-1]:
            others[0] = c.to(ws)
        return cast(Tensor, first_tensor(generator(ws, *others)))


def _repeated(value: Any, ws: Tensor) -> Any:
    """An argument of one sample for as many as there are w."""
    if not isinstance(value, Tensor):
        return value
    return value.to(ws.device).expand(len(ws), *value.shape[1:])


class NamedTwoPartAdapter(Adapter):
    """Generators of modules mapping and synthesis whose inner conventions are unknown; w may be as wide as it likes.

    Args:
        layers: names of the modules that return features; None finds the parts of synthesis that do.
        example_inputs: arguments of the generator for one sample, z first; () stands for z and a zero class.
    """

    name = "named-two-part"
    examples = "any module with modules mapping and synthesis and z_dim"

    def __init__(self, layers: Sequence[str] | None, example_inputs: Sequence[Any] = ()) -> None:
        self.layers = layers
        self.example_inputs = example_inputs

    def matches(self, generator: nn.Module) -> bool:
        parts = (getattr(generator, name, None) for name in ("mapping", "synthesis"))
        return hasattr(generator, "z_dim") and all(isinstance(part, nn.Module) for part in parts)

    def _inputs(self, generator: nn.Module) -> Sequence[Any]:
        c = _zeros(generator, cast(int, getattr(generator, "c_dim", 0)))
        return self.example_inputs or [_zeros(generator, cast(int, generator.z_dim)), c]

    def widths(self, generator: nn.Module) -> tuple[int, int]:
        """Widths of z and w of `generator`, found by running it: FastGAN's w_dim is 0, and its w is z."""
        z, *others = self._inputs(generator)
        with untouched(generator):
            ws = cast(Any, generator).mapping(z, *others[:1])
        return int(z.shape[1]), int(ws.shape[-1])

    def sites(self, generator: nn.Module) -> list[Site]:
        inputs = self._inputs(generator)
        layers = feature_names(generator, "synthesis", inputs) if self.layers is None else self.layers
        return _named_sites(generator, feature_shapes(generator, layers, inputs))

    def install(self, generator: nn.Module, record: Attachment) -> None:
        net = cast(Any, generator)
        self._check_other_readers(net, record.w_dim)
        pass_codes_by(net, "mapping", record)
        take_codes(net.synthesis, net, record, record.w_dim, "w")
        widen_arguments(net, record)

    def _check_other_readers(self, generator: nn.Module, width: int) -> None:
        """Refuse generators in which w also reaches modules that would stumble over the codes."""
        known = {module for part in ("mapping", "synthesis") for module in generator.get_submodule(part).modules()}
        readers: list[str] = []

        def watch(name: str) -> Callable[..., None]:
            def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
                tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
                if any(tensor.ndim == 3 and tensor.shape[-1] == width for tensor in tensors):
                    readers.append(name)

            return hook

        others = [(name, module) for name, module in generator.named_modules() if name and module not in known]
        handles = [module.register_forward_pre_hook(watch(name), with_kwargs=True) for name, module in others]
        try:
            with untouched(generator):
                generator(*self._inputs(generator))
        finally:
            for handle in handles:
                handle.remove()
        if readers:
            raise ValueError(
                f"besides synthesis, {', '.join(readers)} of {type(generator).__name__} also reads w, and would "
                "stumble over the codes in it"
            )

    def uninstall(self, generator: nn.Module, record: Attachment) -> None:
        unwrap(generator, "mapping")
        narrow_arguments(generator, record)

    def to_w(self, generator: nn.Module, z: Tensor, c: Tensor | None, truncation_psi: float) -> Tensor:
        truncation = {} if truncation_psi == 1 else {"truncation_psi": truncation_psi}
        return cast(Tensor, cast(Any, generator).mapping(z, c, **truncation))

    def to_images(self, generator: nn.Module, ws: Tensor, c: Tensor | None, noise_mode: str) -> Tensor:
        synthesis = cast(Any, generator).synthesis
        names = inspect.signature(synthesis.forward).parameters
        given = {"c": c} if "c" in names else {}
        noise = {"noise_mode": noise_mode} if "noise_mode" in names else {}
        return cast(Tensor, first_tensor(synthesis(ws, **given, **noise)))
