"""What `help()` says: examples run as they stand, and PyTorch's own texts never show."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from torch import nn

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for path in (ROOT / "sc_layers").rglob("*.py") if path.name != "__main__.py")


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


WITH_EXAMPLES = [_module_name(path) for path in SOURCES if "    >>> " in path.read_text()]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run_and_print_what_they_say(name: str) -> None:
    module = importlib.import_module(name)
    names = {"torch": importlib.import_module("torch"), "nn": nn}
    result = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0


def _modules_of_ours() -> list[type[nn.Module]]:
    """Every `nn.Module` that the package defines."""
    found = []
    for path in SOURCES:
        classes = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}
        module = importlib.import_module(_module_name(path)) if classes else None
        found += [vars(module)[name] for name in sorted(classes)]
    return [kind for kind in found if issubclass(kind, nn.Module) and not kind.__name__.startswith("_")]


@pytest.mark.parametrize("kind", _modules_of_ours())
def test_help_of_a_module_never_shows_the_text_of_pytorch(kind: type[nn.Module]) -> None:
    ours = [base for base in kind.__mro__ if base.__module__.startswith("sc_layers")]
    for name in ("__doc__", "forward", "extra_repr"):
        if any(name in vars(base) for base in ours):
            text = inspect.getdoc(kind if name == "__doc__" else getattr(kind, name))
            theirs = inspect.getdoc(nn.Module if name == "__doc__" else getattr(nn.Module, name))
            assert text not in (None, theirs), f"{name} has no text of its own"


Definition = ast.FunctionDef | ast.ClassDef


def _public(node: ast.Module | ast.ClassDef, owner: Any) -> Iterator[tuple[Definition, str | None]]:
    """Public functions, classes and methods below `node`, which is `owner`, and their texts, inherited ones included.

    Commands have help pages instead.
    """
    for part in node.body:
        if not isinstance(part, Definition) or part.name.startswith("_"):
            continue
        value = inspect.getattr_static(owner, part.name)
        if not isinstance(value, click.Command):
            yield part, inspect.getdoc(value)
        if isinstance(part, ast.ClassDef):
            yield from _public(part, value)


def _arguments(definition: Definition) -> list[str]:
    if isinstance(definition, ast.ClassDef):
        return [
            name
            for part in definition.body
            if isinstance(part, ast.FunctionDef) and part.name == "__init__"
            for name in _arguments(part)
        ]
    arguments = definition.args
    several = [argument for argument in (arguments.vararg, arguments.kwarg) if argument is not None]
    names = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *several]]
    return [name for name in names if name not in ("self", "cls")]


@pytest.mark.parametrize("name", [_module_name(path) for path in SOURCES])
def test_everything_public_says_what_it_is_and_names_its_arguments(name: str) -> None:
    module = importlib.import_module(name)
    for definition, text in _public(ast.parse(inspect.getsource(module)), module):
        assert text, f"{definition.name} says nothing"
        missing = [argument for argument in _arguments(definition) if not re.search(rf"\b{argument}\b", text)]
        assert not missing, f"{definition.name} does not say what {', '.join(missing)} is"
