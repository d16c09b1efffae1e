"""What reading a checkpoint can raise, besides the operating system's own errors."""

from __future__ import annotations


class CheckpointError(ValueError):
    """The file is damaged, of an unknown format, or holds something that does not fit our networks."""


class UntrustedCheckpointError(CheckpointError):
    """The file asks for a Python name outside the closed list that reading a checkpoint needs."""
