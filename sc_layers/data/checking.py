"""Read every picture of a data set once, to find the damaged ones before a long run meets them."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection
from types import TracebackType

from .base import Source
from .loading import default_workers, in_order

NICENESS = 10  # the check gives way to the training beside it


def _damage(source: Source, index: int) -> str | None:
    try:
        source.picture(index)
    except ValueError as error:
        return str(error)
    return None


def find_damaged(source: Source, workers: int | None = None) -> Iterator[str | None]:
    """What is wrong with each picture in turn, None where nothing is.

    Args:
        source: data set or picture files.
        workers: processes that read; None means up to 4.
    """
    check = functools.partial(_damage, source)
    return in_order(check, range(len(source)), default_workers() if workers is None else workers)


def _check(source: Source, results: Connection) -> None:
    """In a process of its own: send what is wrong with damaged pictures as they are found, then None."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    for index in range(len(source)):
        message = _damage(source, index)
        if message is not None:
            results.send(message)
    results.send(None)


class BackgroundCheck:
    """Reads a whole data set in a process beside the training; a context manager that ends it.

    Args:
        source: data set or picture files.
        start_method: how the process starts: "fork", "spawn" or "forkserver"; None takes the platform's way.
    """

    def __init__(self, source: Source, start_method: str | None = None) -> None:
        self._name = source.name
        context = multiprocessing.get_context(start_method)
        self._results, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_check, args=(source, sender), daemon=True)  # type: ignore[attr-defined]
        self._process.start()
        sender.close()
        self.finished = False

    def __enter__(self) -> BackgroundCheck:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Not by SIGTERM, which the process would handle as the training does, from which it was forked.
        self._process.kill()
        self._process.join()

    def raise_if_damaged(self) -> None:
        """Tell what was found since the last call, without waiting for the rest.

        Raises:
            ValueError: a picture is damaged; the message names it and what lists or skips such pictures.
        """
        while not self.finished and self._results.poll():
            try:
                message = self._results.recv()
            except EOFError as error:
                raise RuntimeError(f"the process that checks {self._name} ended by itself") from error
            if message is not None:
                raise ValueError(
                    f"{message}; `sc-layers dataset info {self._name}` lists all damaged pictures, --skip-bad "
                    "(skip_bad) trains without them"
                )
            self.finished = True
