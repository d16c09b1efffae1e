"""Directions of a trained generator: finding them, and the generator as a plain one of its coordinates along them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..directions import METHODS, Directions, ganspace, sefa
from ..models import Generator
from ..models.generator import code_readers
from ..models.latents import codes_of_seed, draw_codes
from ..models.modules import GlobalModule
from .attachment import attachment_of, is_attached
from .constriction import known_adapter
from .views import SeededGenerator, draw_normal

_BATCH = 64
_FEATURE_SIZE = 4  # pixels to which features are averaged, or their components would take too much memory


class Space(nn.Module):
    """Where directions of a generator lie: z, w [N, L, W], and images of w, whatever program it is of.

    Args:
        generator: of this package, or of a known code base, attached or not.
        c: class [1, c_dim] of another program's; zeros when None.
        latents: how z is drawn, "normal" or "uniform".
    """

    c: Tensor

    def __init__(self, generator: nn.Module, c: Tensor | None = None, latents: str = "normal") -> None:
        super().__init__()
        self.generator = generator
        self.latents = latents
        c = torch.zeros(1, int(getattr(generator, "c_dim", 0))) if c is None else c
        self.register_buffer("c", c.to(next(generator.parameters()).device).float())

    @property
    def z_width(self) -> int:
        """Entries of z, codes of constriction among them."""
        if isinstance(self.generator, Generator):
            return self.generator.num_codes
        if is_attached(self.generator):
            record = attachment_of(self.generator)
            return record.z_dim + record.num_codes
        return known_adapter(self.generator).widths(self.generator)[0]

    @property
    def w_width(self) -> int:
        """Entries of w, without codes of constriction."""
        if isinstance(self.generator, Generator):
            return self.generator.num_codes
        if is_attached(self.generator):
            return attachment_of(self.generator).w_dim
        return known_adapter(self.generator).widths(self.generator)[1]

    def z_of_seed(self, seed: int) -> Tensor:
        """z [1, Z] of a picture, on the CPU, as `seed` gives it without directions."""
        if isinstance(self.generator, Generator):
            return codes_of_seed(seed, self.z_width, self.latents)
        return draw_normal(seed, self.z_width)

    def to_w(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """w [N, L, W] of z [N, Z], pulled towards its average by `truncation_psi`."""
        if isinstance(self.generator, Generator):
            return cast(Tensor, self.generator.mapping(z, truncation_psi=truncation_psi))[:, None]
        c = self.c.expand(len(z), -1)
        return known_adapter(self.generator).to_w(self.generator, z, c, truncation_psi)

    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Images [N, C, H, W] of w, given as `ws` [N, L, W], with noise of this `noise_mode`."""
        if isinstance(self.generator, Generator):
            return cast(Tensor, self.generator.synthesis(ws[:, 0], noise_mode=cast(Any, noise_mode)))
        return known_adapter(self.generator).to_images(self.generator, ws, self.c.expand(len(ws), -1), noise_mode)

    def style_weights(self) -> dict[int, Tensor]:
        """Weights of the maps from w to styles by row of w, see `Adapter.style_weights`."""
        if isinstance(self.generator, Generator):
            return {0: _own_style_weights(self.generator)}
        return known_adapter(self.generator).style_weights(self.generator)


def _own_style_weights(generator: Generator) -> Tensor:
    """[outputs, K]: each module reads codes of its own, and constriction makes a style of each code alone."""
    blocks = []
    for module in code_readers(generator):
        if isinstance(module, GlobalModule):
            blocks.append(module.style.weight / math.sqrt(module.style.weight.shape[1]))
        else:
            blocks.append(torch.block_diag(*cast(Tensor, module.style_weight).flatten(1).unsqueeze(2)))
    return torch.block_diag(*blocks)


@torch.no_grad()
def find_directions(
    space: Space, method: str, count: int, rows: Sequence[int] | None = None, samples: int = 10_000, seed: int = 0
) -> Directions:
    """Directions of a trained generator by SeFa or GANSpace, see `sefa` and `ganspace`.

    Codes are in standard deviations of what was sampled. The w of another program is sampled. The w of this package is
    its codes, whose components say nothing, so GANSpace looks at the first features that all codes have reached,
    averaged to 4x4 pixels. SeFa looks at the styles of each module that reads codes, whose weights it takes as they
    are: where constriction makes a style of each code alone, the directions are the codes, the strongest first.

    Args:
        space: the generator.
        method: "sefa" or "ganspace".
        count: how many directions.
        rows: which rows of w are moved, and looked at by SeFa; all when None.
        samples: how many w, or features, are sampled.
        seed: of the samples.

    Returns:
        The directions, on the CPU.

    Raises:
        ValueError: an unknown method, rows that do not exist, more directions than there are, or a code base of which
            it is not known where the weights of styles are.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    z = draw_codes(samples, space.z_width, space.latents, draws=torch.Generator().manual_seed(seed))
    device = next(space.generator.parameters()).device
    ws = torch.cat([space.to_w(part.to(device)).cpu() for part in z.split(_BATCH)])
    num_rows = ws.shape[1]
    rows = list(range(num_rows)) if rows is None else list(rows)
    if not rows or not all(0 <= row < num_rows for row in rows):
        raise ValueError(f"w has rows 0 to {num_rows - 1}, got {', '.join(map(str, rows)) or 'none'}")
    w = ws[:, rows[0], : space.w_width]
    if method == "sefa":
        weights = [weight.cpu() for row, weight in space.style_weights().items() if row in rows]
        if not weights:
            raise ValueError(f"no style is made of rows {', '.join(map(str, rows))} of w")
        units = sefa(weights, count, normalize=not isinstance(space.generator, Generator))
        steps = units * ((w - w.mean(0)) @ units.T).std(0)[:, None]
    elif isinstance(space.generator, Generator):
        steps = ganspace(_features(space.generator, z), count, z)
    else:
        steps = ganspace(w, count)
    return Directions(method, steps, w.mean(0), rows, space.latents)


def _features(generator: Generator, codes: Tensor) -> Tensor:
    """Features [N, D] behind the last module that reads codes, averaged to few pixels, on the CPU."""
    found: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        size = min(_FEATURE_SIZE, output.shape[-1])
        found.append(nn.functional.adaptive_avg_pool2d(output.float(), size).flatten(1).cpu())

    device = next(generator.parameters()).device
    handle = code_readers(generator)[-1].register_forward_hook(keep)
    try:
        for part in codes.split(_BATCH):
            generator(part.to(device), noise_mode="const")
    finally:
        handle.remove()
    return torch.cat(found)


class DirectedGenerator(SeededGenerator):
    """A generator as a plain one of its coordinates along directions, with the rest of a seed's picture fixed.

    Args:
        space: the generator.
        directions: what its codes move.
        seed: whose picture keeps what no direction moves.
        truncation_psi: pulls the seed's w towards its average.
    """

    def __init__(self, space: Space, directions: Directions, seed: int = 0, truncation_psi: float = 1.0) -> None:
        super().__init__()
        self.space = space
        self.directions = directions
        self.truncation_psi = truncation_psi
        self.num_codes = len(directions.steps)
        self.masked_codes = []
        self.latents = space.latents
        self.register_buffer("z", space.z_of_seed(seed).to(next(space.generator.parameters()).device))

    def forward(
        self, codes: Tensor, noise_mode: str = "const", return_masks: bool = False
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Make images of codes.

        Args:
            codes: [N, K], coordinates along the directions.
            noise_mode: "const", or another that the generator has.
            return_masks: also return masks, of which there are none.

        Returns:
            Images [N, C, H, W], and with `return_masks` masks [N, 0, H, W].
        """
        directions = self.directions.to(self.z.device)
        images = self.to_images(directions.moved(self.to_w(self.z), codes.to(self.z)), noise_mode)
        return (images, images.new_zeros(len(images), 0, *images.shape[2:])) if return_masks else images

    def to_w(self, z: Tensor) -> Tensor:
        """w [N, L, W] of z [N, Z], of this class and truncation."""
        return self.space.to_w(z, self.truncation_psi)

    def to_images(self, ws: Tensor, noise_mode: str = "const") -> Tensor:
        """Images [N, C, H, W] of w, given as `ws` [N, L, W], with noise of this `noise_mode`."""
        return self.space.to_images(ws, noise_mode)

    def at_seed(self, seed: int, truncation_psi: float = 1.0) -> tuple[DirectedGenerator, Tensor]:
        """See `SeededGenerator`; the codes are the coordinates of the seed's w.

        Args:
            seed: from 0 to 2^32 - 1.
            truncation_psi: pulls that w towards its average.
        """
        view = DirectedGenerator(self.space, self.directions, seed, truncation_psi).eval()
        directions = self.directions.to(view.z.device)
        with torch.no_grad():
            w = view.to_w(view.z)[:, directions.rows[0], : directions.steps.shape[1]]
        return view, directions.coordinates(w)

    @property
    def num_drawn(self) -> int:
        """Entries of z."""
        return self.space.z_width
