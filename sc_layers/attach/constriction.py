"""Spatial constriction inside the generators of other StyleGAN2 code bases.

The codes ride in w: the mapping network's output gains one trailing entry a code, and every constricted layer finds its
codes in the row of w that its own module gets. So whatever passes z or w along (style mixing, truncation, projection,
moving averages, pickling) goes on working, with `z_dim` and `w_dim` larger by the number of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from ..layers import SpatialConstriction
from .adapters import eg3d, lucidrains, rosinality, stylegan2_ada, stylegan3
from .adapters.base import Adapter, NamedLayersAdapter, NamedTwoPartAdapter, Site
from .attachment import RECORD, Attachment, attachment_of, is_attached, spread
from .calibration import calibrate
from .hooks import LAYER, remove_hooks

INITS = ("identity", "random")
ADAPTERS: tuple[Adapter, ...] = (
    stylegan3.ADAPTER,
    stylegan2_ada.ADAPTER,
    eg3d.ADAPTER,
    rosinality.ADAPTER,
    lucidrains.ADAPTER,
)

GeneratorT = TypeVar("GeneratorT", bound=nn.Module)


def _find_adapter(
    generator: nn.Module, layers: Sequence[str] | None, z_dim: int | None, example_inputs: Sequence[Any]
) -> Adapter:
    for adapter in ADAPTERS:
        if adapter.matches(generator):
            return adapter
    two_part = NamedTwoPartAdapter(layers, example_inputs)
    if two_part.matches(generator):
        return two_part
    if layers is None:
        examples = [adapter.examples for adapter in ADAPTERS]
        known = "; ".join([*examples, NamedTwoPartAdapter.examples, NamedLayersAdapter.examples])
        raise ValueError(f"{type(generator).__name__} is no generator of a known code base. Known: {known}")
    if example_inputs:
        width: Any = _width_of(example_inputs[0])
    else:
        width = getattr(generator, "z_dim", None) if z_dim is None else z_dim
    if not isinstance(width, int):
        raise ValueError(f"give z_dim, the width of the first argument of {type(generator).__name__}")
    return NamedLayersAdapter(layers, width, example_inputs)


def _width_of(z: Any) -> int:
    if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != 1:
        what = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"the first of example_inputs must be z of one sample, [1, z_dim], got {what}")
    return z.shape[1]


def adapter_of(record: Attachment) -> Adapter:
    """The conventions of the code base that a generator with this record comes from."""
    if record.adapter == NamedTwoPartAdapter.name:
        return NamedTwoPartAdapter(record.layers, record.example_inputs)
    if record.adapter == NamedLayersAdapter.name:
        return NamedLayersAdapter(record.layers, record.z_dim, record.example_inputs)
    return next(adapter for adapter in ADAPTERS if adapter.name == record.adapter)


def known_adapter(generator: nn.Module) -> Adapter:
    """The conventions of a generator, attached or not.

    Raises:
        ValueError: it is of no known code base.
    """
    return adapter_of(attachment_of(generator)) if is_attached(generator) else _find_adapter(generator, None, None, ())


def _chosen_sites(sites: list[Site], resolutions: Sequence[int], layers: Sequence[str] | None) -> list[Site]:
    """The sites of the given names, or the last one of each resolution; always coarse to fine."""
    key = "resolution" if layers is None else "layer"
    wanted: list[int | str] = [*resolutions] if layers is None else [*layers]
    found: dict[int | str, Site] = {getattr(site, "name" if key == "layer" else key): site for site in sites}
    if not wanted or len(set(wanted)) != len(wanted):
        raise ValueError(f"name each {key} once, and at least one, got {wanted}")
    for name in wanted:
        if name not in found:
            raise ValueError(f"no {key} {name!r} can be constricted here; there are {', '.join(map(str, found))}")
    chosen = [found[name] for name in wanted]
    return sorted(chosen, key=sites.index)


def attach_spatial_constriction(
    generator: GeneratorT,
    num_codes: int,
    resolutions: Sequence[int] = (8, 16, 32),
    num_rects: int = 4,
    init: str = "identity",
    *,
    layers: Sequence[str] | None = None,
    z_dim: int | None = None,
    example_inputs: Sequence[Any] = (),
    codes_in_path_length: bool = False,
) -> GeneratorT:
    """Add spatially constricted codes to an existing generator, in place (Eq. 1-7 inside a foreign network).

    Known are the generators of NVlabs stylegan2-ada-pytorch, stylegan3 and eg3d (give the whole TriPlaneGenerator),
    rosinality stylegan2-pytorch, lucidrains stylegan2-pytorch and of forks that kept their names. In any other with
    modules `mapping` and `synthesis`, such as projected-gan's FastGAN, a resolution's last part of synthesis that
    returns features is taken; a module without needs `layers`. Afterwards z and w are wider by `num_codes`; z or w of
    the old width stand for codes 0. The features are constricted after a resolution's last convolution, before its
    ToRGB.

    In training mode no gradient reaches codes through w, so that path-length regularisation leaves them alone: call
    `eval()` on the generator to optimise codes, or see `codes_in_path_length`.

    Args:
        generator: without constriction so far, not wrapped for distribution.
        num_codes: codes of all layers together, spread over them evenly; coarse layers get what is left over.
        resolutions: nominal sizes of the features to constrict; in a stylegan3-t or -r the sampling rates, whose
            last layer is taken.
        num_rects: rectangles J a code.
        init: "identity" leaves the images as they are, bit for bit, and learns from there, with styles and gates that
            start at what the features are like (a few images are made to see that); "random" lets the codes act from
            the start, for generators yet to be trained.
        layers: names of the places in place of `resolutions`: `b16` in stylegan2 types, `L5_84_512` in stylegan3-t/r,
            `convs.3` in rosinality's, `blocks.2` in lucidrains', or for other modules dotted names of the modules that
            return the features.
        z_dim: width of the first argument of an unknown module without that attribute.
        example_inputs: all arguments of an unknown module for one sample, z [1, z_dim] first, where it needs more than
            z; views of the generator repeat the others.
        codes_in_path_length: let gradients reach the code entries of w also in training mode.

    Returns:
        The generator.

    Raises:
        ValueError: unknown generator, resolution, layer or init, no codes, attached already, or w that reaches modules
            which would stumble over codes in it.
    """
    if is_attached(generator):
        raise ValueError(f"{type(generator).__name__} has spatial constriction already")
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    if num_codes < 1:
        raise ValueError(f"num_codes must be positive, got {num_codes}")
    adapter = _find_adapter(generator, layers, z_dim, example_inputs)
    sites = _chosen_sites(adapter.sites(generator), resolutions, layers)[:num_codes]
    z_width, w_width = adapter.widths(generator)
    record = Attachment(
        adapter=adapter.name,
        num_codes=num_codes,
        layers=tuple(site.name for site in sites),
        modules=tuple(site.module for site in sites),
        rows=tuple(site.row for site in sites),
        margins=tuple(site.margin for site in sites),
        z_dim=z_width,
        w_dim=w_width,
        num_rects=num_rects,
        codes_in_path_length=codes_in_path_length,
        example_inputs=tuple(example_inputs),
    )
    _add_layers(generator, record, sites, init)
    try:
        adapter.install(generator, record)
    except ValueError:
        _remove_layers(generator)
        raise
    setattr(generator, RECORD, record)
    if init == "identity":
        calibrate(generator, adapter, record)
    return generator


def _add_layers(generator: nn.Module, record: Attachment, sites: list[Site], init: str) -> None:
    device = next(generator.parameters()).device
    for site, size in zip(sites, spread(record.num_codes, len(sites)), strict=True):
        layer = SpatialConstriction(site.channels, site.size, size, record.num_rects, mask_gain=float(init == "random"))
        generator.get_submodule(site.module).add_module(LAYER, layer.to(device))


def _remove_layers(generator: nn.Module) -> None:
    for module in list(generator.modules()):
        remove_hooks(module)
        if LAYER in module._modules:
            delattr(module, LAYER)


def detach_spatial_constriction(generator: GeneratorT) -> GeneratorT:
    """Remove what `attach_spatial_constriction` added, in place; the generator is what it was before.

    Raises:
        ValueError: nothing is attached.
    """
    record = attachment_of(generator)
    _remove_layers(generator)
    adapter_of(record).uninstall(generator, record)
    delattr(generator, RECORD)
    return generator


def attach_like(target: nn.Module, source: nn.Module) -> None:
    """Attach to `target` what is attached to `source`, if anything; for code that rebuilds networks.

    Args:
        target: fresh, of the class and size of `source`. Weights are not copied.
        source: any network.
    """
    if is_attached(source):
        record = attachment_of(source)
        others: dict[str, Any] = {"z_dim": record.z_dim, "example_inputs": record.example_inputs}
        attach_spatial_constriction(target, init="random", **record.arguments(), **others)


def copy_constriction(source: nn.Module, target: nn.Module) -> None:
    """Give the layers of one attached generator the weights of another's.

    Args:
        source: attached.
        target: attached alike.
    """
    for own, other in zip(constriction_layers(target), constriction_layers(source), strict=True):
        own.load_state_dict(other.state_dict())


def constriction_layers(generator: nn.Module) -> list[SpatialConstriction]:
    """The layers that attaching added to `generator`, coarse to fine."""
    paths = attachment_of(generator).modules
    return [cast(SpatialConstriction, generator.get_submodule(f"{path}.{LAYER}")) for path in paths]


def constriction_parameters(generator: nn.Module) -> list[nn.Parameter]:
    """Parameters that attaching added to `generator`, for an optimiser's group of their own."""
    return [parameter for layer in constriction_layers(generator) for parameter in layer.parameters()]
