"""Writing of files: whole or not at all, whatever the disk does. All that this package writes goes through here."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

_LONGEST_PREFIX = 80  # characters of a name that its temporary file takes over: names may be as long as allowed


class WriteError(OSError):
    """A file could not be written; the message names it and why. What was there before is there still."""


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _sync_folder(folder: Path) -> None:
    """Make a rename outlive a power cut, where folders can be opened for that."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_file(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Write a file whole or not at all: beside its place first, to the disk, then moved there.

    Args:
        path: the file; a link is followed and stays a link.
        data: all that the file will hold.

    Raises:
        WriteError: the disk is full, the folder is missing or can't be written, `path` is no regular file. A file that
            was there is as it was, and nothing else is left.
    """
    place = Path(os.path.realpath(path))
    try:
        if place.exists() and not place.is_file():
            raise OSError(None, "it is a folder or a device, not a file")
        handle, temporary = tempfile.mkstemp(
            prefix=f".{place.name[:_LONGEST_PREFIX]}.", suffix=".part", dir=place.parent
        )
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, place)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise WriteError(f"cannot write {path}: {_reason(error)}") from error
    _sync_folder(place.parent)


def append_line(path: str | os.PathLike[str], line: str) -> None:
    """Add a line to a text file, which is made if need be, whole or not at all. Processes may share the file.

    Args:
        path: the file; a last line that was cut short, as when a process was killed, is ended first.
        line: without its end.

    Raises:
        WriteError: the disk is full, or the file can't be written; it is as it was.
    """
    is_new = not os.path.exists(path)
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            size = os.fstat(handle).st_size
            begin = b"\n" if size and os.pread(handle, 1, size - 1) != b"\n" else b""
            data = begin + line.encode() + b"\n"
            try:
                if os.write(handle, data) < len(data):
                    raise OSError(None, "no space left for a whole line")
            except OSError:
                os.ftruncate(handle, size)
                if is_new:
                    os.unlink(path)
                raise
        finally:
            os.close(handle)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {_reason(error)}") from error
