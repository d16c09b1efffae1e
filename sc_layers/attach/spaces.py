"""Where directions of a generator lie: the way from z over w to images, of this package's and of other programs'."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..directions import ganspace, sefa
from ..models import Generator
from ..models.generator import code_readers
from ..models.latents import codes_of_seed
from ..models.modules import GlobalModule
from .attachment import attachment_of, is_attached
from .constriction import known_adapter
from .views import draw_normal

_BATCH = 64
_FEATURE_SIZE = 4  # pixels to which features are averaged, or their components would take too much memory


class Space(nn.Module, ABC):
    """z [N, Z], w [N, L, W'] and images of a generator, and what SeFa and GANSpace look at in it.

    Args:
        generator: whose they are.
        latents: how z is drawn, "normal" or "uniform".

    Attributes:
        z_width: Z, codes of constriction among them.
        w_width: entries of w without codes of constriction, at most W'.
    """

    z_width: int
    w_width: int

    def __init__(self, generator: nn.Module, latents: str) -> None:
        super().__init__()
        self.generator = generator
        self.latents = latents

    @property
    def device(self) -> torch.device:
        """Where the generator is."""
        return next(self.generator.parameters()).device

    @abstractmethod
    def z_of_seed(self, seed: int) -> Tensor:
        """z [1, Z] of a picture, on the CPU, as `seed` gives it without directions."""

    @abstractmethod
    def to_w(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """w [N, L, W'] of z [N, Z], pulled towards its average by `truncation_psi`."""

    @abstractmethod
    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Images [N, C, H, W] of w, given as `ws` [N, L, W'], with noise of this `noise_mode`."""

    @abstractmethod
    def style_weights(self) -> dict[int, Tensor]:
        """Weights of the maps from w to styles by row of w, see `Adapter.style_weights`."""

    def sefa(self, weights: list[Tensor], count: int) -> Tensor:
        """Unit vectors [count, W] by SeFa from `weights` of styles."""
        return sefa(weights, count)

    def ganspace(self, z: Tensor, w: Tensor, count: int) -> Tensor:
        """Steps [count, W] by GANSpace from samples of z [N, Z] and their w [N, W]."""
        return ganspace(w, count)

    def ws_of(self, z: Tensor) -> Tensor:
        """w [N, L, W'] of many z [N, Z], on the CPU."""
        return torch.cat([self.to_w(part.to(self.device)).cpu() for part in z.split(_BATCH)])


class OwnSpace(Space):
    """Of a generator of this package, whose w is its codes.

    Components of codes say nothing, so GANSpace looks at the first features that all codes have reached, averaged to
    4x4 pixels. SeFa takes the weights of styles as they are: where constriction makes a style of each code alone, the
    directions are the codes, the strongest first.

    Args:
        generator: the generator.
        latents: how codes are drawn, "normal" or "uniform".
    """

    generator: Generator

    def __init__(self, generator: Generator, latents: str = "normal") -> None:
        super().__init__(generator, latents)
        self.z_width = self.w_width = generator.num_codes

    def z_of_seed(self, seed: int) -> Tensor:
        """See `Space`; `seed` is one of `codes_of_seed`."""
        return codes_of_seed(seed, self.z_width, self.latents)

    def to_w(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """See `Space`; one row [N, 1, K] of codes `z`, with `truncation_psi` as the mapping has it."""
        return cast(Tensor, self.generator.mapping(z, truncation_psi=truncation_psi))[:, None]

    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """See `Space`; of `ws` [N, 1, K], with `noise_mode` as the synthesis has it."""
        return cast(Tensor, self.generator.synthesis(ws[:, 0], noise_mode=cast(Any, noise_mode)))

    def style_weights(self) -> dict[int, Tensor]:
        """See `Space`; each module reads codes of its own, and constriction makes a style of each code alone."""
        blocks = []
        for module in code_readers(self.generator):
            if isinstance(module, GlobalModule):
                blocks.append(module.style.weight / math.sqrt(module.style.weight.shape[1]))
            else:
                blocks.append(torch.block_diag(*cast(Tensor, module.style_weight).flatten(1).unsqueeze(2)))
        return {0: torch.block_diag(*blocks)}

    def sefa(self, weights: list[Tensor], count: int) -> Tensor:
        """See `Space`; `count` unit vectors of `weights` that are not normalised."""
        return sefa(weights, count, normalize=False)

    def ganspace(self, z: Tensor, w: Tensor, count: int) -> Tensor:
        """See `Space`; `count` components of the features of codes `z`, whatever `w`."""
        return ganspace(self._features(z), count, z)

    def _features(self, codes: Tensor) -> Tensor:
        """Features [N, D] behind the last module that reads codes, averaged to few pixels, on the CPU."""
        found: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            size = min(_FEATURE_SIZE, output.shape[-1])
            found.append(nn.functional.adaptive_avg_pool2d(output.float(), size).flatten(1).cpu())

        handle = code_readers(self.generator)[-1].register_forward_hook(keep)
        try:
            for part in codes.split(_BATCH):
                self.generator(part.to(self.device), noise_mode="const")
        finally:
            handle.remove()
        return torch.cat(found)


class ForeignSpace(Space):
    """Of a generator of another program, whose w is sampled.

    Args:
        generator: of a known code base, attached or not.
        c: class [1, c_dim]; zeros when None.

    Raises:
        ValueError: the generator is of no known code base.
    """

    c: Tensor

    def __init__(self, generator: nn.Module, c: Tensor | None = None) -> None:
        super().__init__(generator, "normal")
        self.adapter = known_adapter(generator)
        if is_attached(generator):
            record = attachment_of(generator)
            self.z_width, self.w_width = record.z_dim + record.num_codes, record.w_dim
        else:
            self.z_width, self.w_width = self.adapter.widths(generator)
        c = torch.zeros(1, int(getattr(generator, "c_dim", 0))) if c is None else c
        self.register_buffer("c", c.to(self.device).float())

    def z_of_seed(self, seed: int) -> Tensor:
        """See `Space`; `seed` is one of NVlabs' `generate.py`."""
        return draw_normal(seed, self.z_width)

    def to_w(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """See `Space`; of `z` and the class, with `truncation_psi` as the adapter has it."""
        return self.adapter.to_w(self.generator, z, self.c.expand(len(z), -1), truncation_psi)

    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """See `Space`; of `ws`, with `noise_mode` as the code base has it."""
        return self.adapter.to_images(self.generator, ws, self.c.expand(len(ws), -1), noise_mode)

    def style_weights(self) -> dict[int, Tensor]:
        """See `Space`."""
        return self.adapter.style_weights(self.generator)
