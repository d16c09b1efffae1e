"""Pictures and masks of attached generators, and attached generators as plain functions of their codes."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from ..layers import SpatialConstriction
from ..models.latents import traversal_codes
from .attachment import attachment_of
from .constriction import adapter_of
from .hooks import LAYER, observe, split_codes


def images_and_masks(
    generator: nn.Module, ws: Tensor, noise_mode: str = "const", c: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Images [N, C, H, W] of w, and the masks of all codes at their size, differentiable (Eq. 5).

    Args:
        generator: attached.
        ws: [N, L, w_dim + K].
        noise_mode: "const", or another that the code base has.
        c: [N, c_dim], for synthesis networks that read more than w, such as the camera of eg3d.

    Returns:
        Images, and masks [N, K, H, W] in [0, 1]; a layer's margin beyond the picture is cropped.
    """
    record = attachment_of(generator)
    adapter = adapter_of(record)
    layers = [generator.get_submodule(f"{paths[-1]}.{LAYER}") for paths in adapter.copies(record)]
    seen: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for handle in observe(layers, seen.__setitem__):
            stack.callback(handle.remove)
        images = adapter.to_images(generator, ws, c, noise_mode)
    masks = [
        nn.functional.interpolate(
            _crop(cast(SpatialConstriction, layer).masks(seen[i]), margin), images.shape[2:], mode="bilinear"
        )
        for i, (layer, margin) in enumerate(zip(layers, record.margins, strict=True))
    ]
    return images, torch.cat(masks, dim=1)


def masks_of(generator: nn.Module, ws: Tensor, c: Tensor | None = None) -> Tensor:
    """The masks alone of `images_and_masks`.

    Args:
        generator: attached.
        ws: [N, L, w_dim + K].
        c: [N, c_dim], for synthesis networks that read more than w.

    Returns:
        [N, K, H, W] in [0, 1].
    """
    return images_and_masks(generator, ws, c=c)[1]


def _crop(masks: Tensor, margin: int) -> Tensor:
    return masks[..., margin : masks.shape[-2] - margin, margin : masks.shape[-1] - margin]


def draw_latent(generator: nn.Module, seed: int) -> Tensor:
    """z with codes [1, z_dim + K] from N(0, 1), on the CPU; of each seed what NVlabs' `generate.py --seeds` draws.

    Args:
        generator: attached.
        seed: from 0 to 2^32 - 1.
    """
    record = attachment_of(generator)
    return draw_normal(seed, record.z_dim + record.num_codes)


def draw_normal(seed: int, width: int) -> Tensor:
    """z [1, width] from N(0, 1), on the CPU, as NVlabs' scripts draw it with `seed`, from 0 to 2^32 - 1."""
    return torch.from_numpy(np.random.RandomState(seed).randn(1, width)).float()


class SeededGenerator(nn.Module):
    """A generator as a plain one of codes, with everything else of a seed's picture fixed.

    Attributes:
        num_codes: K.
        masked_codes: codes that have masks.
        z: [1, Z], what the picture is made of, codes apart.
        latents: the distribution that z is drawn from, "normal" or "uniform".
    """

    num_codes: int
    masked_codes: list[int]
    z: Tensor
    latents: str = "normal"

    @abstractmethod
    def at_seed(self, seed: int, truncation_psi: float = 1.0) -> tuple[SeededGenerator, Tensor]:
        """The same generator at the picture of a seed, and the codes [1, K] of that picture.

        Args:
            seed: from 0 to 2^32 - 1.
            truncation_psi: never acts on codes of constriction.
        """

    @abstractmethod
    def to_w(self, z: Tensor) -> Tensor:
        """w of all that is drawn for pictures, of this class and truncation, given as `z` [N, D]."""

    @abstractmethod
    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Images [N, C, H, W] of w, given as `ws`, with noise of this `noise_mode`."""

    @property
    @abstractmethod
    def num_drawn(self) -> int:
        """D, how many numbers are drawn for a picture, codes among them."""

    @property
    def img_resolution(self) -> int:
        """Height of the images, found by making one."""
        with torch.no_grad():
            return int(self(self.z.new_zeros(1, self.num_codes)).shape[2])


class AttachedGenerator(SeededGenerator):
    """An attached generator as a plain one of codes, with everything else fixed: for TPL, sweeps and pictures.

    Args:
        generator: attached.
        z: [1, z_dim] or [1, z_dim + K], whose codes are ignored; `draw_latent(generator, 0)` when None.
        c: class or camera [1, c_dim]; zeros when None.
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
        """Make images of codes.

        Args:
            codes: [N, K].
            noise_mode: "const", or another that the code base has.
            return_masks: also return the masks.

        Returns:
            Images [N, C, H, W], and with `return_masks` the masks [N, K, H, W] at their size.
        """
        ws = self.to_w(torch.cat([self.z.expand(len(codes), -1), codes.to(self.z)], dim=1))
        if return_masks:
            return images_and_masks(self.generator, ws, noise_mode, self.c.expand(len(ws), -1))
        return self.to_images(ws, noise_mode)

    def to_w(self, z: Tensor) -> Tensor:
        """Wide w of z with codes [N, z_dim + K], of this class and truncation."""
        adapter = adapter_of(attachment_of(self.generator))
        return adapter.to_w(self.generator, z, self.c.expand(len(z), -1), self.truncation_psi)

    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Images [N, C, H, W] of wide w, given as `ws` [N, L, w_dim + K], with noise of this `noise_mode`."""
        adapter = adapter_of(attachment_of(self.generator))
        return adapter.to_images(self.generator, ws, self.c.expand(len(ws), -1), noise_mode)

    def at_seed(self, seed: int, truncation_psi: float = 1.0) -> tuple[AttachedGenerator, Tensor]:
        """See `SeededGenerator`; the codes are those that `draw_latent` draws with `seed`.

        Args:
            seed: from 0 to 2^32 - 1.
            truncation_psi: never acts on codes.
        """
        z = draw_latent(self.generator, seed)
        view = AttachedGenerator(self.generator, z, self.c, truncation_psi).eval()
        return view, z[:, -self.num_codes :].to(self.z)

    @property
    def num_drawn(self) -> int:
        """Entries of z and codes."""
        record = attachment_of(self.generator)
        return record.z_dim + record.num_codes

    c: Tensor


class AttachedSampler(nn.Module):
    """A generator of codes as one of all that is drawn, z and codes: for FID, KID and PPL.

    Args:
        view: gives generator, class and truncation; its z is not used.
    """

    def __init__(self, view: SeededGenerator) -> None:
        super().__init__()
        self.view = view
        self.num_codes = view.num_drawn

    def forward(self, z: Tensor, noise_mode: str = "random") -> Tensor:
        """Images [N, C, H, W] of z with codes [N, D], with noise of this `noise_mode`."""
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
        c: class or camera [1, c_dim]; zeros when None.
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
