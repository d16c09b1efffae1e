"""Every module of the package has a file of tests under its own name, at the same place below `tests`."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = [
    path.relative_to(ROOT / "sc_layers")
    for path in sorted((ROOT / "sc_layers").rglob("*.py"))
    if path.stem not in ("__init__", "__main__")
]


@pytest.mark.parametrize("module", MODULES, ids=Path.as_posix)
def test_a_module_has_tests_of_its_name(module: Path) -> None:
    assert (ROOT / "tests" / module.parent / f"test_{module.stem.lstrip('_')}.py").is_file()
