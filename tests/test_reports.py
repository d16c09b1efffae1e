"""Commands under a limit, and what pytest's closing line says."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests import reports
from tests.gpu import Part, parts


def run(program: str, folder: Path, limit: float = 60) -> str | None:
    return reports.run([sys.executable, "-S", "-c", program], folder / "log", limit, folder, os.environ)


def test_output_of_a_command_is_kept(tmp_path: Path) -> None:
    assert run("import sys; print('out'); print('err', file=sys.stderr)", tmp_path) is None
    assert sorted((tmp_path / "log").read_text().split()) == ["err", "out"]


def test_failure_and_crash_are_told_apart(tmp_path: Path) -> None:
    assert run("raise SystemExit(3)", tmp_path) == "exit status 3"
    assert run("import os; os.abort()", tmp_path) == "ended by SIGABRT"


def test_hanging_command_ends_with_all_that_it_started(tmp_path: Path) -> None:
    child = f"import time; time.sleep(3); open({str(tmp_path / 'alive')!r}, 'w')"
    program = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {child!r}]); time.sleep(60)"
    assert run(program, tmp_path, limit=1) == "not done within 1 s"
    time.sleep(3)
    assert not (tmp_path / "alive").exists()


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("collected 3\n1 failed, 2 passed in 0.12s", "1 failed, 2 passed"),
        (
            "==== 2011 passed, 60 skipped, 8 deselected, 24 warnings in 411.87s (0:06:51) ====\nbye",
            "2011 passed, 60 skipped",
        ),
        ("2 passed in 1.00s\n1 error in 0.10s\n", "1 error"),
        ("Fatal Python error: Segmentation fault", ""),
    ],
)
def test_counts_of_the_closing_line(output: str, expected: str) -> None:
    assert reports.counts(output) == expected


@pytest.mark.parametrize(("reason", "passed"), [("pass", True), ("import pytest; pytest.skip('no card')", False)])
def test_part_of_make_gpu_passes_only_if_some_test_did(
    reason: str, passed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.gpu.LOGS", tmp_path)
    (tmp_path / "test_it.py").write_text(f"def test_it():\n    {reason}\n")
    part = Part("tests", ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)], limit=120)
    part.run(deadline=time.monotonic() + 120)
    assert part.passed == passed, part.outcome


def test_part_of_make_gpu_without_time_left_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu.LOGS", tmp_path)
    part = Part("late", ["-c", ""], limit=10)
    part.run(deadline=time.monotonic())
    assert (part.outcome, part.passed) == ("no time left", False)


def test_compiling_is_passed_where_the_library_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu.LOGS", tmp_path)
    for impossible, passed in (("", True), ("no-compiler", False)):
        if impossible:
            monkeypatch.setenv("CXX", impossible)
            monkeypatch.setenv("SC_LAYERS_PREBUILT", str(tmp_path))
        part = parts()[0][0]
        part.run(deadline=time.monotonic() + 120)
        assert part.passed == passed, part.log.read_text()
