"""Open files that every process opens for itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class PerProcess(Generic[T]):
    """What `opening()` returns, opened at the first use in a process.

    A forked worker shares the position of its parent's file, a spawned one cannot be sent it: either opens its own.

    Args:
        opening: opens the file; picklable.
        survives_fork: whether a forked process may go on with what its parent opened, as with a memory map.
    """

    def __init__(self, opening: Callable[[], T], survives_fork: bool = False) -> None:
        self._opening = opening
        self._survives_fork = survives_fork
        self._opened: tuple[int, T] | None = None

    def get(self) -> T:
        """The open file of this process."""
        process = os.getpid()
        if self._opened is None or not (self._survives_fork or self._opened[0] == process):
            self._opened = (process, self._opening())
        return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}
