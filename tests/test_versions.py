"""What `make versions` names is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests import versions


@pytest.mark.parametrize("path", [*versions.SWAPPED, *(f"tests/{name}.py" for name in versions.LEFT_OUT)])
def test_test_files_exist(path: str) -> None:
    assert (versions.ROOT / path).is_file()


def test_every_supported_python_has_its_turn() -> None:
    project = (versions.ROOT / "pyproject.toml").read_text()
    supported = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    assert sorted(set(versions.ENVIRONMENTS.values())) == sorted(supported)
    oldest = re.search(r'"torch>=([\d.]+)"', project)
    assert oldest
    assert next(iter(versions.ENVIRONMENTS)) == oldest[1]


def test_missing_interpreter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(versions.Failed, match=r"no Python 3\.1 here .*python3\.1 on the PATH"):
        versions.interpreter("3.1")


def test_failed_download_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "FOLDER", tmp_path)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    breaks_off_once = tmp_path / "python"
    breaks_off_once.write_text(f"#!/bin/sh\nmkdir {tmp_path}/tried || exit 0\nexit 1\n")
    breaks_off_once.chmod(0o755)
    versions.install(breaks_off_once, "2.10-install", "torch")
    assert {"2.10-install.log", "2.10-install-again.log"} <= {path.name for path in tmp_path.iterdir()}


def test_end_of_a_failed_step_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(versions, "FOLDER", tmp_path)
    monkeypatch.setattr(versions, "ROOT", tmp_path)
    command = [sys.executable, "-c", "print('first\\n' * 100, 'No space left on device'); raise SystemExit(3)"]
    with pytest.raises(versions.Failed, match=r"exit status 3: see install\.log"):
        versions.report(command, "install", cwd=tmp_path)
    printed = capsys.readouterr().err
    assert printed.startswith("install: exit status 3\n")
    assert printed.endswith("No space left on device\n")
    assert len(printed.splitlines()) == 1 + versions.SHOWN
