"""Watches what Python itself reports of running code, files, processes and imports."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What reading a checkpoint must never cause. "open" is checked for writing, "import" for modules not imported yet.
FORBIDDEN = {
    "compile",
    "exec",
    "os.system",
    "os.exec",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.spawn",
    "os.startfile",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "os.chmod",
    "subprocess.Popen",
    "shutil.rmtree",
    "socket.connect",
    "socket.getaddrinfo",
    "ctypes.dlopen",
    "code.__new__",
    "pickle.find_class",
    "marshal.loads",
    "builtins.input",
    "webbrowser.open",
}

_current: list[tuple[str, str]] | None = None


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _current is None:
        return
    writes = event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")
    if event in FORBIDDEN or writes or (event == "import" and args[0] not in sys.modules):
        _current.append((event, repr(args)[:200]))


sys.addaudithook(_hook)
for codec in ("cp437", "raw_unicode_escape"):  # zipfile and pickletools decode with these; import them before watching
    b"-".decode(codec)


@contextmanager
def watched() -> Iterator[list[tuple[str, str]]]:
    """Collects the forbidden events of a block; the list must be empty at its end."""
    global _current
    _current = []
    try:
        yield _current
    finally:
        _current = None
