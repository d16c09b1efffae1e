"""Files of strangers are read in one place: nothing else in the package unpickles, and nothing runs text.

TorchScript weights run code as they load; the commands that take them say so.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "sc_layers").rglob("*.py"))
FORBIDDEN = {
    "eval",
    "exec",
    "torch.load",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "shelve.open",
}


def _dangerous_calls(source: str) -> list[str]:
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    named = [(ast.unparse(call.func), call) for call in calls]
    found = [name for name, _ in named if name in FORBIDDEN]
    for name, call in named:
        plain = any(word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in call.keywords)
        if name in ("np.load", "numpy.load") and not plain:
            found.append(f"{name} without allow_pickle=False")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_module_unpickles_or_runs_text(path: Path) -> None:
    assert _dangerous_calls(path.read_text()) == []


def test_the_check_sees_dangerous_calls() -> None:
    source = "torch.load(f, weights_only=True)\npickle.loads(b)\nnp.load(f)\nnp.load(f, allow_pickle=False)\nexec(t)\n"
    assert sorted(_dangerous_calls(source)) == [
        "exec",
        "np.load without allow_pickle=False",
        "pickle.loads",
        "torch.load",
    ]
