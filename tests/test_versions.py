"""What `make versions` names is there."""

from __future__ import annotations

import re
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
