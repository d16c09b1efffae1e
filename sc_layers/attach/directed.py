"""Directions of a trained generator: finding them, and the generator as a plain one of its coordinates along them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..directions import METHODS, Directions
from ..models.latents import draw_codes
from .spaces import Space
from .views import SeededGenerator


@torch.no_grad()
def find_directions(
    space: Space, method: str, count: int, rows: Sequence[int] | None = None, samples: int = 10_000, seed: int = 0
) -> Directions:
    """Directions of a trained generator by SeFa or GANSpace, see `sefa` and `ganspace`.

    Codes are in standard deviations of what was sampled: w, or the codes of a generator of this package (`OwnSpace`).

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
    ws = space.ws_of(z)
    num_rows = ws.shape[1]
    rows = list(range(num_rows)) if rows is None else list(rows)
    if not rows or not all(0 <= row < num_rows for row in rows):
        raise ValueError(f"w has rows 0 to {num_rows - 1}, got {', '.join(map(str, rows)) or 'none'}")
    w = ws[:, rows[0], : space.w_width]
    if method == "sefa":
        weights = [weight.cpu() for row, weight in space.style_weights().items() if row in rows]
        if not weights:
            raise ValueError(f"no style is made of rows {', '.join(map(str, rows))} of w")
        units = space.sefa(weights, count)
        steps = units * ((w - w.mean(0)) @ units.T).std(0)[:, None]
    else:
        steps = space.ganspace(z, w, count)
    return Directions(method, steps, w.mean(0), rows, space.latents)


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
        self.register_buffer("z", space.z_of_seed(seed).to(space.device))

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
