"""What the explorer shows: a picture of a network, seen in one of three ways, and what every code does to it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...checkpoints.opening import Opened, name_codes
from ...images import check_images, gif_bytes, png_bytes, shown_masks, to_uint8
from ...messages import shown
from ...metrics.traversal_length import TraversalLength
from ..edits import with_values
from ..sheet import overlaid
from ..sweeps import sweep_codes

SIGHTS = ("image", "mask", "change")
BOUND = 4.0  # codes are moved within it, as TPL sweeps them
_THUMBNAIL = 48  # pixels
_LARGEST_SEED = 2**32 - 1
_SWEEP = 2.0  # bound of the GIF's sweep
_POINTS = 13


@dataclass(frozen=True)
class View:
    """One picture, as it is asked for.

    Attributes:
        seed: decides the codes, and z of another program's generator.
        truncation: factor on the seed's codes, or psi of another program's generator.
        values: codes that are moved away from the seed's, by number.
        sight: "image"; "mask", orange where the mask of `code` is open; or "change", how much each pixel changes when
            `code` moves from 1 below its value to 1 above.
        code: which code the sight and a sweep are about.
    """

    seed: int
    truncation: float
    values: dict[int, float]
    sight: str
    code: int

    @classmethod
    def read(cls, asked: Any, num_codes: int) -> View:
        """The view that a page asks for.

        Args:
            asked: parsed JSON, whatever it is.
            num_codes: K of the network.

        Raises:
            ValueError: something is missing, of another kind, or out of its range.
        """
        if not isinstance(asked, Mapping):
            raise ValueError(f"a view is an object, got {shown(asked)}")
        values = asked.get("values")
        if not isinstance(values, Mapping):
            raise ValueError(f"values are an object of numbers, got {shown(values)}")
        moved = {_whole(code, num_codes - 1, "code"): _number(value, BOUND, "value") for code, value in values.items()}
        sight = asked.get("sight")
        if sight not in SIGHTS:
            raise ValueError(f"sight is one of {', '.join(SIGHTS)}, got {shown(sight)}")
        return cls(
            _whole(asked.get("seed"), _LARGEST_SEED, "seed"),
            _number(asked.get("truncation"), 10.0, "truncation"),
            moved,
            sight,
            _whole(asked.get("code"), num_codes - 1, "code"),
        )


def _whole(value: Any, largest: int, name: str) -> int:
    digits = str(value) if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 10 and int(digits) <= largest):
        raise ValueError(f"{name} is a whole number from 0 to {largest}, got {shown(value)}")
    return int(digits)


def _number(value: Any, bound: float, name: str) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not -bound <= value <= bound:
        raise ValueError(f"{name} is a number from {-bound:g} to {bound:g}, got {shown(value)}")
    return float(value)


@dataclass(frozen=True)
class Picture:
    """What is drawn of a view.

    Attributes:
        image: PNG.
        masks: PNGs of the masks of the constricted codes, by number, on the scale of `shown_masks`.
        codes: the seed's codes, without what the view moves.
        command: the command line that writes the picture of the same codes.
    """

    image: bytes
    masks: dict[int, bytes]
    codes: list[float]
    command: str


class Scene:
    """A network to explore.

    Args:
        opened: the generator.
        tpl: how far each code moves the picture, or None where that was not measured.
        options: what the network was opened with, such as `("--code", "DIR")`, for the command line.
    """

    def __init__(self, opened: Opened, tpl: TraversalLength | None = None, options: tuple[str, ...] = ()) -> None:
        self.opened = opened
        self.tpl = tpl
        self.options = options
        self.names = opened.names

    def codes(self) -> list[dict[str, Any]]:
        """All codes in the order of their rows: number, name, whether a mask constricts it, TPL and standard error."""
        generator = self.opened.generator
        ranking = range(generator.num_codes) if self.tpl is None else self.tpl.ranking
        rows = []
        for code in ranking:
            row = {"code": code, "name": self.names.get(code, ""), "masked": code in generator.masked_codes}
            if self.tpl is not None:
                error = float(self.tpl.std_per_dim[code]) / len(self.tpl.per_traversal) ** 0.5
                row |= {"tpl": float(self.tpl.per_dim[code]), "error": error}
            rows.append(row)
        return rows

    def rename(self, code: int, name: str) -> None:
        """Give a code a name, which is kept in the network's file.

        Args:
            code: its number.
            name: of at most 100 characters; an empty one takes the name away.

        Raises:
            ValueError: a code that does not exist, a longer name, or a file that keeps no names.
            WriteError: the file can't be written.
        """
        _whole(code, self.opened.generator.num_codes - 1, "code")
        if len(name) > 100 or "\n" in name:
            raise ValueError(f"a name is one line of at most 100 characters, got {shown(name)}")
        self.names = name_codes(self.opened.path, {code: name})

    @torch.no_grad()
    def draw(self, view: View) -> Picture:
        """The picture of a view, and the masks of all codes in it.

        Args:
            view: what to draw.

        Raises:
            ValueError: images that are not finite.
        """
        generator, base = self._at(view)
        codes = with_values(base, view.values)
        made, masks = generator(codes, noise_mode="const", return_masks=True)
        image = to_uint8(check_images(made, codes))[0]
        by_code = dict(zip(self.opened.generator.masked_codes, masks[0], strict=True))
        if view.sight == "mask":
            image = overlaid(image, by_code.get(view.code, masks.new_zeros(image.shape[1:])))
        elif view.sight == "change":
            image = self._change(generator, codes, view.code)
        thumbnails = {code: png_bytes(_thumbnail(mask)) for code, mask in by_code.items()}
        return Picture(png_bytes(image.cpu()), thumbnails, base[0].tolist(), self._command(view))

    @torch.no_grad()
    def sweep(self, view: View) -> bytes:
        """The sweep of the view's code to and fro, as a GIF.

        Args:
            view: what to draw.
        """
        generator, base = self._at(view)
        sweep = sweep_codes(generator, with_values(base, view.values)[0], _POINTS, _SWEEP, [view.code])
        return gif_bytes(dataclasses.replace(sweep, masks=None).frames())

    def _at(self, view: View) -> tuple[Any, Tensor]:
        generator, codes = dataclasses.replace(self.opened, truncation=view.truncation).at_seed(view.seed)
        return generator, codes

    @staticmethod
    def _change(generator: Any, codes: Tensor, code: int) -> Tensor:
        value = float(codes[0, code])
        ends = torch.cat([with_values(codes, {code: value + step}) for step in (-1.0, 1.0)])
        below, above = check_images(generator(ends, noise_mode="const"), ends).clamp(-1, 1)
        return (255 * shown_masks((above - below).abs().mean(0, keepdim=True) / 2)).round().to(torch.uint8)

    def _command(self, view: View) -> str:
        words = ["sc-layers", "generate", str(self.opened.path), *self.options, "--seeds", str(view.seed)]
        words += ["--truncation", f"{view.truncation:g}"]
        if view.values:
            words += ["--set", ",".join(f"{code}={value:g}" for code, value in sorted(view.values.items()))]
        return shlex.join(words)


def _thumbnail(mask: Tensor) -> Tensor:
    """A mask [H, W] as a small picture, uint8 [1, H', W']."""
    size = (min(_THUMBNAIL, mask.shape[0]), min(_THUMBNAIL, mask.shape[1]))
    small = torch.nn.functional.interpolate(mask[None, None].float(), size, mode="area")[0]
    return (255 * shown_masks(small)).round().to(torch.uint8).cpu()
