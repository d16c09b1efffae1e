"""What libraries raise for damaged files, told as one line that names the file."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

MOST_CHARACTERS = 300


@contextlib.contextmanager
def named_if_damaged(where: object, what: str = "") -> Iterator[None]:
    """Turn whatever is raised inside into a ValueError that says which file cannot be read.

    Pillow, NumPy, SciPy, zipfile and their like raise errors of nearly every kind for damaged files, and quote as much
    of them as they please.

    Args:
        where: what messages call the file.
        what: what it should have been, such as "an image".

    Raises:
        ValueError: something was raised.
    """
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if len(reason) > MOST_CHARACTERS:
            reason = reason[:MOST_CHARACTERS] + "..."
        raise ValueError(f"{where} cannot be read{what and f' as {what}'}: {reason}") from error
