"""What the configurations of all networks share: image format, the rule of widths, and their form in JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ..messages import shown

_Config = TypeVar("_Config", bound="NetworkConfig")

# Types that a value read from JSON may have, by the annotation of its field.
_JSON_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (float,),
    "bool": (bool,),
    "int | None": (int, type(None)),
}


def check_power_of_two(resolution: int, smallest: int) -> None:
    """Raise ValueError unless the resolution is a power of two from `smallest` on."""
    if resolution < smallest or resolution & (resolution - 1):
        raise ValueError(f"the resolution must be a power of two from {smallest}, got {resolution}")


def scaled_width(channels: int, factor: float) -> int:
    """`factor` times so many channels, 1 at least."""
    return max(1, round(channels * factor))


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Fields that all networks have.

    Args:
        resolution: height and width of the images, a power of two.
        num_channels: colour channels of the images, 1 or 3 as a rule.
        fmap_base: width of stage 0 before clipping; a stage s is int(fmap_base / 2^(s * fmap_decay)) channels wide,
            within fmap_min and fmap_max.
        fmap_decay: how fast the width falls from stage to stage; 1 halves it.
        fmap_min: the smallest width.
        fmap_max: the largest width.
    """

    resolution: int
    num_channels: int = 3
    fmap_base: int = 512
    fmap_decay: float = 1.0
    fmap_min: int = 16
    fmap_max: int = 512

    smallest_resolution: ClassVar[int] = 4

    def __post_init__(self) -> None:
        check_power_of_two(self.resolution, self.smallest_resolution)
        for name in ("num_channels", "fmap_base", "fmap_min"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.fmap_max < self.fmap_min:
            raise ValueError(f"fmap_max must be at least fmap_min = {self.fmap_min}, got {self.fmap_max}")

    def width(self, stage: int) -> int:
        """Channels of a stage: `clip(int(fmap_base / 2^(stage * fmap_decay)), fmap_min, fmap_max)`."""
        return min(max(int(self.fmap_base / 2.0 ** (stage * self.fmap_decay)), self.fmap_min), self.fmap_max)

    def widened(self: _Config, factor: float) -> _Config:
        """The same network with `factor` times as many channels everywhere, 1 at least."""
        names = ("fmap_base", "fmap_min", "fmap_max")
        return dataclasses.replace(self, **{name: scaled_width(getattr(self, name), factor) for name in names})

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON knows them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls: type[_Config], fields: Mapping[str, Any]) -> _Config:
        """The configuration that `to_dict` wrote.

        Args:
            fields: its fields by name, as JSON knows them.

        Raises:
            ValueError: a field is unknown, missing, of the wrong type or out of range.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        required = {name for name, field in known.items() if field.default is dataclasses.MISSING}
        for problem, names in {"unknown": set(fields) - set(known), "missing": required - set(fields)}.items():
            if names:
                raise ValueError(f"{cls.__name__}: {problem} field {', '.join(sorted(map(str, names)))}")
        return cls(**{name: cls._read_field(name, str(known[name].type), value) for name, value in fields.items()})

    @classmethod
    def _read_field(cls, name: str, kind: str, value: Any) -> Any:
        """A field's value from JSON, where whole floats may be ints and a bool is no number."""
        if kind == "float" and type(value) is int:
            return float(value)
        if type(value) not in _JSON_TYPES[kind]:
            raise ValueError(f"{cls.__name__}: field {name} must be {kind}, got {shown(value)}")
        return value
