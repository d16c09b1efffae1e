"""What reading a checkpoint can raise, besides the operating system's own errors."""

from __future__ import annotations


class CheckpointError(ValueError):
    """The file is damaged, of an unknown format, or holds something that does not fit our networks.

    Messages quote names from the file; characters that could steer a terminal are replaced.

    Args:
        message: what is wrong.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(char if char.isprintable() else "?" for char in message))


class UntrustedCheckpointError(CheckpointError):
    """The file asks for a Python name outside the closed list that reading a checkpoint needs."""
