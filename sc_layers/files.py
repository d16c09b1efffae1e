"""Files: only regular ones are opened, and what is written is whole or not there at all, whatever the disk does.

All that this package writes goes through here.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import stat
import tempfile
from pathlib import Path
from typing import Any

_LONGEST_PREFIX = 80  # characters of a name that its temporary file takes over: names may be as long as allowed


_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class WriteError(OSError):
    """A file could not be written; the message names it and why. What was there before is there still."""


def check_regular(path: str | os.PathLike[str]) -> None:
    """Refuse what is no regular file, behind all links: a pipe or a device may block for ever, or never end.

    Args:
        path: what is going to be opened.

    Raises:
        FileNotFoundError: there is nothing.
        ValueError: a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {os.fspath(path)!r}") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        raise ValueError(f"{os.fspath(path)!r} is a {kinds.get(stat.S_IFMT(mode), 'device')}, expected a file")


def open_file(path: str | os.PathLike[str]) -> io.BufferedReader:
    """Open a regular file for reading bytes.

    Args:
        path: the file; links are followed.

    Raises:
        FileNotFoundError, ValueError: see `check_regular`.
        OSError: it can't be read.
    """
    check_regular(path)
    return os.fdopen(os.open(path, _READ), "rb")  # without waiting, should a pipe have taken the file's place


def read_file(path: str | os.PathLike[str]) -> bytearray:
    """All bytes of a regular file, in memory that tensors may be views of.

    Args:
        path: the file; links are followed.

    Raises:
        FileNotFoundError, ValueError, OSError: see `open_file`.
    """
    with open_file(path) as file:
        data = bytearray(os.fstat(file.fileno()).st_size)
        del data[file.readinto(data) :]
        return data


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


def read_json_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects in a file of lines of JSON; none where there is no file.

    Args:
        path: a file that `append_line` wrote. A line that was cut short when a process was killed is left out.

    Raises:
        ValueError, OSError: see `open_file`.
    """
    found = []
    for line in bytes(read_file(path)).splitlines() if os.path.exists(path) else ():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return [entry for entry in found if isinstance(entry, dict)]


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
        with open(path, "ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 1, 0))
            begin = b"" if file.read(1) in (b"", b"\n") else b"\n"
            data = begin + line.encode() + b"\n"
            # One call, which appends wherever the end is by then. If it fails, nothing of the line is there.
            written = os.write(file.fileno(), data)
            if written < len(data):
                # Only our own part goes: lines of other processes may lie before it.
                file.truncate(file.seek(0, os.SEEK_END) - written)
                raise OSError(None, "no space left for a whole line")
    except OSError as error:
        if is_new and os.path.exists(path) and not os.path.getsize(path):
            os.unlink(path)
        raise WriteError(f"cannot write {path}: {_reason(error)}") from error
