"""The order of the rooms: imports run one way, and no modules import each other in a circle.

Read from the sources: imports inside functions count, those for type checkers too, and so do `import_module` calls.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# From the bottom up: a module imports from its own row or from rows above it in this table, never from one below.
# The longest name that a module's own begins with decides.
ROWS = (
    ("_optional", "files", "messages", "integrations.grid_sampling"),
    ("ops", "data", "images", "integrations.compat"),
    ("functional",),
    ("layers", "losses", "regularizers", "directions"),
    ("models",),
    ("attach",),
    ("checkpoints",),
    ("metrics", "pictures", "training", "integrations", "checkpoints.hub"),
    ("sweep",),
    ("cli",),
    ("__main__",),
)
# Rooms of one row that use each other, this way round.
WITHIN_A_ROW = {
    ("checkpoints.hub", "pictures"),
    ("integrations", "metrics"),
    ("integrations", "pictures"),
    ("pictures", "metrics"),
    ("pictures", "training"),
    ("regularizers", "losses"),
}


def _modules() -> dict[str, Path]:
    """All modules of the package by name, without the leading `sc_layers.`; the package itself is ""."""
    found = {}
    for path in sorted((ROOT / "sc_layers").rglob("*.py")):
        parts = path.relative_to(ROOT / "sc_layers").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = _modules()


def _absolute(module: str, name: str, level: int) -> str:
    """The full name of what a relative import in `module` names."""
    if not level:
        return name
    package = ["sc_layers", *filter(None, module.split("."))]
    if MODULES[module].name != "__init__.py":
        package.pop()
    return ".".join([*package[: len(package) - level + 1], *filter(None, [name])])


def _named(node: ast.AST, module: str) -> Iterator[str]:
    """Full names of modules, or of things in modules, that one node of the syntax tree imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        base = _absolute(module, node.module or "", node.level)
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) == "import_module":
        name = node.args[0]
        if isinstance(name, ast.Constant):
            level = len(name.value) - len(name.value.lstrip("."))
            yield _absolute(module, name.value.lstrip("."), level)


def _imports(module: str) -> set[str]:
    """The modules of the package that `module` imports."""
    tree = ast.parse(MODULES[module].read_text())
    found = set()
    for node in ast.walk(tree):
        for name in _named(node, module):
            if name.split(".")[0] != "sc_layers":
                continue
            parts = name.split(".")[1:]
            while ".".join(parts) not in MODULES:
                parts.pop()
            found.add(".".join(parts))
    return found - {"", module}


def _place(module: str) -> tuple[int, str]:
    """Row and room of a module."""
    rooms = [(len(room), row, room) for row, rooms in enumerate(ROWS) for room in rooms]
    fitting = [entry for entry in rooms if module == entry[2] or module.startswith(entry[2] + ".")]
    assert fitting, f"sc_layers.{module} is in no room of the table"
    _, row, room = max(fitting)
    return row, room


@pytest.mark.parametrize("module", sorted(set(MODULES) - {""}))
def test_imports_run_one_way(module: str) -> None:
    row, room = _place(module)
    for imported in _imports(module):
        other_row, other_room = _place(imported)
        allowed = other_row < row or other_room == room or ((room, other_room) in WITHIN_A_ROW and other_row == row)
        assert allowed, f"sc_layers.{module} imports sc_layers.{imported}, which is above or beside it"


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: _imports(module) for module in MODULES if module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_check_sees_imports_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "layers.py"
    source.write_text(
        "from .ops import loading\n"
        "if TYPE_CHECKING:\n    from .models import Generator\n"
        "def f():\n    from . import cli\n    importlib.import_module('.training', __package__)\n"
        "    import_module('sc_layers.metrics.distances')\n"
    )
    monkeypatch.setitem(MODULES, "layers", source)
    assert _imports("layers") == {"ops.loading", "models", "cli", "training", "metrics.distances"}


WITH_PYTORCH_ALONE = """
import importlib.abc, sys
class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
import sc_layers.training.step
"""


def test_a_training_step_runs_on_a_machine_with_nothing_but_pytorch() -> None:
    absent = ("PIL", "click", "h5py", "kornia", "lmdb", "matplotlib", "safetensors", "scipy", "sklearn", "tqdm", "yaml")
    subprocess.run([sys.executable, "-c", WITH_PYTORCH_ALONE, *absent], check=True, cwd=ROOT)
