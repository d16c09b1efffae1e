"""What reading a checkpoint can raise, besides the operating system's own errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import IO

_LONGEST_MESSAGE = 2000


class CheckpointError(ValueError):
    """The file is damaged, of an unknown format, or holds something that does not fit our networks.

    Messages quote names from the file; characters that could steer a terminal are replaced, and long ones are cut.

    Args:
        message: what is wrong.
    """

    def __init__(self, message: str) -> None:
        cut = message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}..."
        super().__init__("".join(char if char.isprintable() else "?" for char in cut))


class UntrustedCheckpointError(CheckpointError):
    """The file asks for a Python name outside the closed list that reading a checkpoint needs."""


@contextlib.contextmanager
def naming(source: str | os.PathLike[str] | IO[bytes]) -> Iterator[None]:
    """Make every failure of a block that reads a file a `CheckpointError` with the file's path before it.

    What a damaged or forged file makes Python's or PyTorch's own functions raise is thus told like what we look for.

    Args:
        source: the file; one that is open already has no path to name.

    Raises:
        CheckpointError: something went wrong; errors of the operating system and of missing packages stay as they are.
    """
    where = f"{os.fspath(source)}: " if isinstance(source, (str, os.PathLike)) else ""
    try:
        yield
    except CheckpointError as error:
        raise type(error)(f"{where}{error}") from error
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise CheckpointError(f"{where}it cannot be read: {type(error).__name__}: {error!s:.200}") from error
