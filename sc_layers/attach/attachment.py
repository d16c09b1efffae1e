"""What attaching leaves on a generator, and how codes are spread over its layers."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from torch import nn

RECORD = "spatial_constriction"  # the attribute of an attached generator that holds its Attachment


def spread(num_codes: int, num_layers: int) -> list[int]:
    """Share `num_codes` among `num_layers`, coarse to fine: evenly, and the coarse ones get what is left over.

    A layer that comes away empty is not constricted.

    >>> spread(7, 3), spread(2, 3)
    ([3, 2, 2], [1, 1, 0])
    """
    each, more = divmod(num_codes, num_layers)
    return [each + (layer < more) for layer in range(num_layers)]


@dataclass
class Attachment:
    """How spatial constriction is attached to a generator; the generator's attribute `spatial_constriction`.

    Args:
        adapter: name of the code base.
        num_codes: codes of all layers together, K.
        layers: names of the places, coarse to fine, as `attach_spatial_constriction` takes them.
        modules: dotted paths of the modules that own the layers.
        rows: index of the row of w from which each reads its codes.
        margins: pixels a side by which the features of each exceed the picture.
        z_dim: width of z before the codes.
        w_dim: width of w before the codes.
        num_rects: as given to `attach_spatial_constriction`.
        codes_in_path_length: likewise.
        example_inputs: likewise, () where none were given.
    """

    adapter: str
    num_codes: int
    layers: tuple[str, ...]
    modules: tuple[str, ...]
    rows: tuple[int, ...]
    margins: tuple[int, ...]
    z_dim: int
    w_dim: int
    num_rects: int
    codes_in_path_length: bool
    example_inputs: tuple[Any, ...] = field(default=(), repr=False)

    def arguments(self) -> dict[str, Any]:
        """Plain arguments with which `attach_spatial_constriction` builds the same structure on a fresh generator."""
        return {
            "num_codes": self.num_codes,
            "layers": list(self.layers),
            "num_rects": self.num_rects,
            "codes_in_path_length": self.codes_in_path_length,
        }

    def groups(self) -> list[tuple[int, int]]:
        """First and last+1 code of every layer."""
        ends = accumulate(spread(self.num_codes, len(self.layers)), initial=0)
        return list(pairwise(ends))


def is_attached(generator: nn.Module) -> bool:
    """Whether the generator has spatial constriction."""
    return isinstance(getattr(generator, RECORD, None), Attachment)


def attachment_of(generator: nn.Module) -> Attachment:
    """How spatial constriction is attached to a generator.

    Raises:
        ValueError: it is not.
    """
    record = getattr(generator, RECORD, None)
    if not isinstance(record, Attachment):
        raise ValueError(f"{type(generator).__name__} has no spatial constriction; use attach_spatial_constriction")
    return record


def num_codes(generator: nn.Module) -> int:
    """Number of codes K of an attached generator."""
    return attachment_of(generator).num_codes
