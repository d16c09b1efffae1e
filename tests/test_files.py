"""Reading of regular files only; writing whole or not at all, on a full disk too, and by no other means."""

from __future__ import annotations

import ast
import errno
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import sc_layers
from sc_layers.files import WriteError, append_line, check_regular, read_file, read_json_lines, write_file
from sc_layers.images import save_png
from tests.checkpoints import samples
from tests.cli.running import run

PACKAGE = Path(sc_layers.__file__).parent
# What writes by itself: the writer, ninja's input and locks, a zip that goes on where it stopped, all or nothing of
# many files of somebody's checkout.
WRITERS = {"files.py", "ops/building.py", "data/sinks.py", "integrations/patching.py"}
WRITING = {"write_text", "write_bytes"}


@contextmanager
def _disk_of(size: int) -> Iterator[None]:
    """Files can't grow over `size` bytes, as on a disk that is full."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for content in (b"first", b"second"):
        write_file(path, content)
        assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_the_mode_is_that_of_a_new_file(tmp_path: Path) -> None:
    write_file(tmp_path / "ours", b"")
    (tmp_path / "pythons").write_bytes(b"")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "pythons").stat().st_mode


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_file(tmp_path / "file", b"old")
    with _disk_of(1000), pytest.raises(WriteError, match=r"cannot write .*file: file too large"):
        write_file(tmp_path / "file", bytes(2000))
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_full_file_system_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True)
    if mount.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        write_file(tmp_path / "file", b"old")
        append_line(tmp_path / "lines", "old")
        with pytest.raises(WriteError, match="no space left on device"):
            write_file(tmp_path / "file", bytes(100_000))
        with pytest.raises(WriteError, match="no space left"):
            append_line(tmp_path / "lines", "x" * 100_000)
        assert (tmp_path / "file").read_bytes() == b"old"
        assert (tmp_path / "lines").read_text() == "old\n"
        assert {found.name for found in tmp_path.iterdir()} == {"file", "lines"}
    finally:
        subprocess.run(["umount", tmp_path], check=True)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing/file", "no such file or directory"),
        (".", "it is a folder or a device"),
        ("/dev/full", "it is a folder or a device"),
        ("x" * 300, "file name too long"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(WriteError, match=message) as caught:
        write_file(tmp_path / name, b"")
    assert str(tmp_path / name) in str(caught.value)


def test_lines_are_added_and_one_that_was_cut_short_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    with path.open("a") as file:
        file.write("tw")
    append_line(path, "three")
    assert path.read_text() == "one\ntw\nthree\n"


def test_a_line_that_does_not_fit_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    append_line(path, "one")
    with _disk_of(100), pytest.raises(WriteError, match="cannot write"):
        append_line(path, "x" * 200)
    assert path.read_text() == "one\n"

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(WriteError, match="no space left on device"):
        append_line(path, "two")
    assert path.read_text() == "one\n"
    with pytest.raises(WriteError, match="no space left on device"):
        append_line(tmp_path / "new", "one")
    assert not (tmp_path / "new").exists()


def _writes(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = (*node.args, *(keyword.value for keyword in node.keywords))
        modes = [str(value.value) for value in given if isinstance(value, ast.Constant)]
        opens = called == "open" and any(mode[:1] in ("w", "a", "x") for mode in modes)
        in_memory = any(isinstance(value, ast.Name) and value.id == "buffer" for value in given)
        saves = called == "savefig" or ast.unparse(node.func) in ("torch.save", "np.save", "torch.export.save")
        if called in WRITING or ((opens or saves) and not in_memory):
            yield f"line {node.lineno}: {called}"


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_writes_by_other_means(module: Path) -> None:
    if module.relative_to(PACKAGE).as_posix() not in WRITERS:
        assert not list(_writes(ast.parse(module.read_text())))


def test_a_file_behind_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    data = read_file(tmp_path / "link")
    assert data == b"abc"
    assert isinstance(data, bytearray)


def test_lines_of_json_are_read_but_for_what_a_killed_process_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert read_json_lines(path) == []
    for line in ('{"a": 1}', "[2]", '{"a": 3}', '{"a'):
        append_line(path, line)
    assert read_json_lines(path) == [{"a": 1}, {"a": 3}]


@pytest.fixture
def _no_waiting() -> Iterator[None]:
    """Opening a pipe waits for its other end for ever: this ends the wait."""

    def stop(number: int, frame: object) -> None:
        raise AssertionError("it waits")

    handler = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)


@pytest.mark.usefixtures("_no_waiting")
def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name, kind in {"pipe": "pipe", "link": "pipe", "zeros": "device", ".": "folder"}.items():
        for read in (check_regular, read_file):
            with pytest.raises(ValueError, match=f"is a {kind}, expected a file"):
                read(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_file(tmp_path / "absent")


@pytest.mark.usefixtures("_no_waiting")
@pytest.mark.parametrize(
    "command",
    [
        "inspect {pipe}.pkl",
        "convert {pipe}.safetensors {folder}/out.pt",
        "generate {pipe}.pkl",
        "traverse {pipe}.pkl",
        "metrics {pipe}.pkl",
        "metrics {network} --distance lpips --weights {pipe}.pt",
        "metrics {network} --distance efficientnet --weights {pipe}.pt",
        "metrics {network} --metrics fid --data {pictures} --features efficientnet --feature-weights {pipe}.pt",
        "metrics {network} --metrics mig --data {pictures} --attributes {pipe}.csv",
        "metrics rotation {network} --codes 0,1 --distance lpips --weights {pipe}.pt",
        "select {pipe}.pkl",
        "train --data {pictures} --preset demo --resume {pipe}.pkl --outdir {folder}/runs",
        *(f"dataset info {{pipe}}.{suffix}" for suffix in ("npz", "h5", "zip", "png", "tfrecords", "gz")),
    ],
)
def test_no_command_waits_for_a_pipe(command: str, tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    save_png(torch.zeros(3, 8, 8, dtype=torch.uint8), tmp_path / "pictures" / "0.png")
    (tmp_path / "net.safetensors").write_bytes(samples.all_formats()["safetensors"])
    places = {"pipe": "pipe", "network": "net.safetensors", "pictures": "pictures", "folder": "."}
    words = command.format(**{name: tmp_path / place for name, place in places.items()}).split()
    for word in words:
        if Path(word).stem == "pipe":
            os.mkfifo(word)
    result = run(*words)
    assert result.exit_code == 2, result.output
    assert "pipe" in result.output
