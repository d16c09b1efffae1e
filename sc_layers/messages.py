"""How messages quote what a file or a user gave."""

from __future__ import annotations

from typing import Any

_LONGEST = 80
_LARGEST = 2**64


def shown(value: Any) -> str:
    """A value as messages quote it: a short text for any value, at a cost that does not grow with it.

    >>> shown("circle"), shown(2**400_000), shown([1, 2])
    ("'circle'", 'an integer of 400001 bits', 'a list')

    Args:
        value: anything; texts and bytes are cut, and of what is neither plain nor short only the type is named.
    """
    if isinstance(value, (str, bytes, bytearray)):
        return f"{value[:_LONGEST]!r}{'...' if len(value) > _LONGEST else ''}"
    if isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        return f"an integer of {value.bit_length()} bits"
    if value is None or isinstance(value, (bool, int, float, complex)):
        return repr(value)
    return f"a {type(value).__name__}"
