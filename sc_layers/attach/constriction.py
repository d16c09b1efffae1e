"""Spatial constriction inside the generators of other StyleGAN2 code bases.

The codes ride in w: the mapping network's output gains one trailing entry a code, the synthesis network strips them and
hands them to the layers it carries. So whatever passes z or w along (style mixing, truncation, projection, moving
averages, pickling) goes on working, with `z_dim` and `w_dim` larger by the number of codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import SpatialConstriction
from ..models.latents import traversal_codes
from .adapters import lucidrains, rosinality, stylegan2_ada, stylegan3
from .adapters.base import Adapter, Attachment, NamedLayersAdapter, NamedTwoPartAdapter, Site
from .hooks import LAYER, InFlight, remove_hooks, split_codes

RECORD = "spatial_constriction"  # the attribute of an attached generator that holds its Attachment
INITS = {"identity": 0.0, "random": 1.0}  # initial gain of the masks
ADAPTERS: tuple[Adapter, ...] = (stylegan3.ADAPTER, stylegan2_ada.ADAPTER, rosinality.ADAPTER, lucidrains.ADAPTER)

GeneratorT = TypeVar("GeneratorT", bound=nn.Module)


def _find_adapter(generator: nn.Module, layers: Sequence[str] | None, z_dim: int | None) -> Adapter:
    for adapter in ADAPTERS:
        if adapter.matches(generator):
            return adapter
    if layers is None:
        examples = [adapter.examples for adapter in ADAPTERS]
        known = "; ".join([*examples, NamedTwoPartAdapter.examples, NamedLayersAdapter.examples])
        raise ValueError(f"{type(generator).__name__} is no generator of a known code base. Known: {known}")
    two_part = NamedTwoPartAdapter(layers)
    if two_part.matches(generator):
        return two_part
    width = getattr(generator, "z_dim", None) if z_dim is None else z_dim
    if not isinstance(width, int):
        raise ValueError(f"give z_dim, the width of the first argument of {type(generator).__name__}")
    return NamedLayersAdapter(layers, width)


def _adapter_of(record: Attachment) -> Adapter:
    if record.adapter == NamedTwoPartAdapter.name:
        return NamedTwoPartAdapter(record.layers)
    if record.adapter == NamedLayersAdapter.name:
        return NamedLayersAdapter(record.layers, record.z_dim)
    return next(adapter for adapter in ADAPTERS if adapter.name == record.adapter)


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


def _check_groups(num_codes: int, sites: list[Site], codes_per_group: int) -> None:
    if num_codes < 1 or codes_per_group < 1:
        raise ValueError(f"num_codes and codes_per_group must be positive, got {num_codes} and {codes_per_group}")
    filled = -(-num_codes // codes_per_group)
    if filled != len(sites):
        raise ValueError(
            f"{num_codes} codes in groups of {codes_per_group} fill {filled} layers, but {len(sites)} are chosen "
            f"({', '.join(site.name for site in sites)}): they hold {(len(sites) - 1) * codes_per_group + 1} "
            f"to {len(sites) * codes_per_group} codes"
        )


def attach_spatial_constriction(
    generator: GeneratorT,
    num_codes: int,
    resolutions: Sequence[int] = (8, 16, 32),
    num_rects: int = 4,
    codes_per_group: int = 5,
    init: str = "identity",
    *,
    layers: Sequence[str] | None = None,
    z_dim: int | None = None,
    codes_in_path_length: bool = False,
) -> GeneratorT:
    """Add spatially constricted codes to an existing generator, in place (Eq. 1-7 inside a foreign network).

    Known are the generators of NVlabs stylegan2-ada-pytorch and stylegan3, rosinality stylegan2-pytorch and lucidrains
    stylegan2-pytorch; any other module needs `layers`. Afterwards z and w are wider by `num_codes`; z or w of the old
    width stand for codes 0. The features are constricted after a resolution's last convolution, before its ToRGB.

    Args:
        generator: without constriction so far, not wrapped for distribution.
        num_codes: codes of all layers together, filled coarse to fine in groups.
        resolutions: nominal sizes of the features to constrict; in a stylegan3-t or -r the sampling rates, whose
            last layer is taken.
        num_rects: rectangles J a code.
        codes_per_group: codes a layer; the last layer may have fewer.
        init: "identity" leaves the images as they are, bit for bit, and learns from there (a learned gain of the masks
            starts at 0); "random" lets the codes act from the start (the gain starts at 1).
        layers: names of the places in place of `resolutions`: `b16` in stylegan2 types, `L5_84_512` in stylegan3-t/r,
            `convs.3` in rosinality's, `blocks.2` in lucidrains', or for other modules dotted names of the modules that
            return the features.
        z_dim: width of the first argument of an unknown module without that attribute.
        codes_in_path_length: let gradients reach the code entries of w also in training mode, where only path-length
            regularisation asks for them.

    Returns:
        The generator.

    Raises:
        ValueError: unknown generator, resolution, layer or init, codes that do not fit the layers, attached already.
    """
    if hasattr(generator, RECORD):
        raise ValueError(f"{type(generator).__name__} has spatial constriction already")
    if init not in INITS:
        raise ValueError(f"init must be one of {', '.join(INITS)}, got {init!r}")
    adapter = _find_adapter(generator, layers, z_dim)
    sites = _chosen_sites(adapter.sites(generator), resolutions, layers)
    _check_groups(num_codes, sites, codes_per_group)
    z_width, w_width = adapter.widths(generator)
    record = Attachment(
        adapter=adapter.name,
        num_codes=num_codes,
        layers=tuple(site.name for site in sites),
        modules=tuple(site.module for site in sites),
        margins=tuple(site.margin for site in sites),
        z_dim=z_width,
        w_dim=w_width,
        num_rects=num_rects,
        codes_per_group=codes_per_group,
        codes_in_path_length=codes_in_path_length,
        flight=InFlight(),
    )
    device = next(generator.parameters()).device
    for site, (start, stop) in zip(sites, record.groups(), strict=True):
        layer = SpatialConstriction(site.channels, site.size, stop - start, num_rects, mask_gain=INITS[init])
        generator.get_submodule(site.module).add_module(LAYER, layer.to(device))
        adapter.add_layer_hooks(generator, site.module, record.flight, start, stop)
    adapter.install(generator, record)
    setattr(generator, RECORD, record)
    return generator


def attachment_of(generator: nn.Module) -> Attachment:
    """How spatial constriction is attached to a generator.

    Raises:
        ValueError: it is not.
    """
    record = getattr(generator, RECORD, None)
    if not isinstance(record, Attachment):
        raise ValueError(f"{type(generator).__name__} has no spatial constriction; use attach_spatial_constriction")
    return record


def detach_spatial_constriction(generator: GeneratorT) -> GeneratorT:
    """Remove what `attach_spatial_constriction` added, in place; the generator is what it was before.

    Raises:
        ValueError: nothing is attached.
    """
    record = attachment_of(generator)
    for module in list(generator.modules()):
        remove_hooks(module)
        if LAYER in module._modules:
            delattr(module, LAYER)
    _adapter_of(record).uninstall(generator, record)
    delattr(generator, RECORD)
    return generator


def constriction_parameters(generator: nn.Module) -> list[nn.Parameter]:
    """Parameters that attaching added, for an optimiser's group of their own."""
    record = attachment_of(generator)
    return [p for path in record.modules for p in generator.get_submodule(path).get_submodule(LAYER).parameters()]


def num_codes(generator: nn.Module) -> int:
    """Number of codes K of an attached generator."""
    return attachment_of(generator).num_codes


def codes_of(generator: nn.Module, ws: Tensor) -> Tensor:
    """Codes [N, K] that ride in w.

    Args:
        generator: attached.
        ws: [N, L, w_dim + K] or [N, w_dim + K]; of the old width w_dim the codes are zeros.
    """
    record = attachment_of(generator)
    codes = split_codes(ws, record.w_dim, record.num_codes, "w")[1]
    return codes[:, 0] if codes.ndim == 3 else codes


def with_codes(generator: nn.Module, ws: Tensor, codes: Tensor) -> Tensor:
    """w with other codes.

    Args:
        generator: attached.
        ws: [N, L, w_dim] or [N, w_dim], with or without K entries of codes.
        codes: [N, K].

    Returns:
        [N, L, w_dim + K] or [N, w_dim + K].
    """
    record = attachment_of(generator)
    if codes.ndim != 2 or codes.shape[1] != record.num_codes:
        raise ValueError(f"codes must be [N, {record.num_codes}], got {tuple(codes.shape)}")
    ws = split_codes(ws, record.w_dim, record.num_codes, "w")[0]
    codes = codes.to(ws.dtype)
    if ws.ndim == 3:
        codes = codes[:, None].expand(-1, ws.shape[1], -1)
    return torch.cat([ws, codes], dim=-1)


def images_and_masks(generator: nn.Module, ws: Tensor, noise_mode: str = "const") -> tuple[Tensor, Tensor]:
    """Images [N, C, H, W] of w, and the masks of all codes at their size, differentiable (Eq. 5).

    Args:
        generator: attached.
        ws: [N, L, w_dim + K].
        noise_mode: "const", or another that the code base has.

    Returns:
        Images, and masks [N, K, H, W], gain included; a layer's margin beyond the picture is cropped.
    """
    record = attachment_of(generator)
    with record.flight.recording_masks() as layers:
        images = _adapter_of(record).to_images(generator, ws, noise_mode)
    masks = [
        nn.functional.interpolate(_crop(masks, margin), images.shape[2:], mode="bilinear")
        for masks, margin in zip(layers, record.margins, strict=True)
    ]
    return images, torch.cat(masks, dim=1)


def masks_of(generator: nn.Module, ws: Tensor) -> Tensor:
    """The masks alone of `images_and_masks`, [N, K, H, W]."""
    return images_and_masks(generator, ws)[1]


def _crop(masks: Tensor, margin: int) -> Tensor:
    return masks[..., margin : masks.shape[-2] - margin, margin : masks.shape[-1] - margin]


def draw_latent(generator: nn.Module, seed: int) -> Tensor:
    """z with codes [1, z_dim + K] from N(0, 1), on the CPU; of each seed what NVlabs' `generate.py --seeds` draws.

    Args:
        generator: attached.
        seed: from 0 to 2^32 - 1.
    """
    record = attachment_of(generator)
    draws = np.random.RandomState(seed).randn(1, record.z_dim + record.num_codes)
    return torch.from_numpy(draws).float()


class AttachedGenerator(nn.Module):
    """An attached generator as a plain one of codes, with everything else fixed: for TPL, sweeps and pictures.

    Args:
        generator: attached.
        z: [1, z_dim] or [1, z_dim + K], whose codes are ignored; `draw_latent(generator, 0)` when None.
        c: class [1, c_dim]; zeros when None.
        truncation_psi: never acts on codes.
    """

    def __init__(
        self, generator: nn.Module, z: Tensor | None = None, c: Tensor | None = None, truncation_psi: float = 1.0
    ) -> None:
        super().__init__()
        record = attachment_of(generator)
        device = next(generator.parameters()).device
        z = draw_latent(generator, 0) if z is None else z
        c = torch.zeros(1, getattr(generator, "c_dim", 0)) if c is None else c
        self.generator = generator
        self.truncation_psi = truncation_psi
        self.num_codes = record.num_codes
        self.masked_codes = list(range(record.num_codes))
        self.register_buffer("z", split_codes(z.to(device), record.z_dim, record.num_codes, "z")[0].float())
        self.register_buffer("c", c.to(device).float())

    def forward(
        self, codes: Tensor, noise_mode: str = "const", return_masks: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Images [N, C, H, W] of codes [N, K], and with `return_masks` the masks [N, K, H, W] at their size."""
        ws = self.to_w(torch.cat([self.z.expand(len(codes), -1), codes.to(self.z)], dim=1))
        if return_masks:
            return images_and_masks(self.generator, ws, noise_mode)
        return self.to_images(ws, noise_mode)

    def to_w(self, z: Tensor) -> Tensor:
        """Wide w of z with codes [N, z_dim + K], of this class and truncation."""
        adapter = _adapter_of(attachment_of(self.generator))
        return adapter.to_w(self.generator, z, self.c.expand(len(z), -1), self.truncation_psi)

    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Images [N, C, H, W] of wide w."""
        return _adapter_of(attachment_of(self.generator)).to_images(self.generator, ws, noise_mode)

    @property
    def img_resolution(self) -> int:
        """Height of the images, found by making one."""
        with torch.no_grad():
            return int(self(self.z.new_zeros(1, self.num_codes)).shape[2])

    z: Tensor
    c: Tensor


class AttachedSampler(nn.Module):
    """An attached generator as a plain one whose codes are all of z and the codes: for FID, KID and PPL.

    Args:
        view: gives generator, class and truncation; its z is not used.
    """

    def __init__(self, view: AttachedGenerator) -> None:
        super().__init__()
        record = attachment_of(view.generator)
        self.view = view
        self.num_codes = record.z_dim + record.num_codes

    def forward(self, z: Tensor, noise_mode: str = "random") -> Tensor:
        """Images [N, C, H, W] of z with codes [N, z_dim + K]."""
        return self.view.to_images(self.view.to_w(z), noise_mode)


@torch.no_grad()
def traverse(
    generator: nn.Module,
    z: Tensor | None = None,
    c: Tensor | None = None,
    *,
    points: int = 7,
    bound: float = 2.0,
    dims: list[int] | None = None,
    truncation_psi: float = 1.0,
) -> Tensor:
    """Images in which one code after the other sweeps [-bound, bound].

    Args:
        generator: attached.
        z: [1, z_dim + K], or [1, z_dim] for codes 0; standard normal when None.
        c: class [1, c_dim]; zeros when None.
        points: images a sweep.
        bound: half the range of a sweep.
        dims: codes to sweep; all when None.
        truncation_psi: never acts on codes.

    Returns:
        [D, points, C, H, W], one row a swept code.
    """
    record = attachment_of(generator)
    device = next(generator.parameters()).device
    z = torch.randn(1, record.z_dim + record.num_codes, device=device) if z is None else z.to(device)
    base = split_codes(z, record.z_dim, record.num_codes, "z")[1][0]
    run = AttachedGenerator(generator, z, c, truncation_psi)
    return torch.stack([run(row) for row in traversal_codes(base, points, bound, dims)])


def attach_like(target: nn.Module, source: nn.Module) -> None:
    """Attach to `target` what is attached to `source`, if anything; for code that rebuilds networks.

    Args:
        target: fresh, of the class and size of `source`. Weights are not copied.
        source: any network.
    """
    if hasattr(source, RECORD):
        attach_spatial_constriction(target, **attachment_of(source).arguments())


def widen(generator: nn.Module, latent: Tensor, random: bool = False) -> Tensor:
    """z or w [..., width] with entries for the codes appended, if the generator is attached and they are missing.

    Args:
        generator: any.
        latent: of the width before the codes, or already wide.
        random: draw the codes from N(0, 1) in place of zeros.
    """
    if not hasattr(generator, RECORD):
        return latent
    record = attachment_of(generator)
    if latent.shape[-1] not in (record.z_dim, record.w_dim):
        return latent
    shape = (*latent.shape[:-1], record.num_codes)
    codes = torch.randn(shape, dtype=latent.dtype, device=latent.device) if random else latent.new_zeros(shape)
    return torch.cat([latent, codes], dim=-1)


def codes_apart(generator: nn.Module, ws: Tensor) -> tuple[Tensor, Tensor | None]:
    """w without and the entries of its codes, for arithmetic on w that must not touch codes; see `codes_rejoined`.

    Of a generator without codes, w itself and None.
    """
    if not hasattr(generator, RECORD):
        return ws, None
    record = attachment_of(generator)
    return split_codes(ws, record.w_dim, record.num_codes, "w")


def codes_rejoined(ws: Tensor, codes: Tensor | None) -> Tensor:
    """Undo `codes_apart`."""
    return ws if codes is None else torch.cat([ws, codes], dim=-1)
