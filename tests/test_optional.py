"""Optional packages are named with the extra that brings them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sc_layers._optional import require


def test_a_package_that_is_there_is_imported() -> None:
    assert require("json.decoder", "train").JSONDecoder


@pytest.mark.parametrize("module", ["package_of_nobody", "package_of_nobody.part"])
def test_a_missing_package_is_named_with_its_extra(module: str) -> None:
    with pytest.raises(ImportError, match=r"needs the package 'package_of_nobody': pip install 'sc-layers\[hub\]'"):
        require(module, "hub")


def test_what_an_installed_package_lacks_itself_is_not_blamed_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "installed_but_broken.py").write_text("import package_of_nobody")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="No module named 'package_of_nobody'"):
        require("installed_but_broken", "hub")
