"""Finding where the insertions of a patch belong in a file that differs from the one that the patch was made for.

A patch tells the neighbours of each insertion by hashes of their text, so that it holds none of it. In a fork's file a
place fits as far as its neighbours do; the insertions of a file keep their order, and what came out must compile, with
every name that an inserted line reads bound above it.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

NEIGHBOURS = 6
_HASH_LENGTH = 8


@dataclass(frozen=True)
class Neighbours:
    """Hashes of the lines around an insertion, blank ones left out.

    Args:
        before: hashes of the lines above it, the nearest last.
        after: hashes of the lines below it, the nearest first.
        detached: whether a blank line parts it from the line above it.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    detached: bool = False


class NoPlace(ValueError):
    """An insertion has no place in a file, or more than one."""


def line_hash(line: bytes) -> str:
    """Hash of a line of code, whatever its white space."""
    return hashlib.sha1(b" ".join(line.split()), usedforsecurity=False).hexdigest()[:_HASH_LENGTH]


def neighbours_of(lines: Sequence[bytes], position: int) -> Neighbours:
    """Those of an insertion after the first `position` lines."""
    before = [line_hash(line) for line in lines[:position] if line.strip()][-NEIGHBOURS:]
    after = [line_hash(line) for line in lines[position:] if line.strip()][:NEIGHBOURS]
    return Neighbours(tuple(before), tuple(after), position > 0 and not lines[position - 1].strip())


def _agreeing(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the common beginning."""
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return length


class _File:
    """The lines of a file that are not blank, by hash."""

    def __init__(self, lines: Sequence[bytes]) -> None:
        self.lines = lines
        self.numbers = [number for number, line in enumerate(lines) if line.strip()]
        self.hashes = [line_hash(lines[number]) for number in self.numbers]

    def score(self, gap: int, neighbours: Neighbours) -> tuple[int, int]:
        """How many neighbours above and below agree with those of the gap before the line of this index."""
        above = self.hashes[max(gap - NEIGHBOURS, 0) : gap][::-1]
        below = self.hashes[gap : gap + NEIGHBOURS]
        return _agreeing(neighbours.before[::-1], above), _agreeing(neighbours.after, below)

    def unique(self, gap: int, above: int) -> bool:
        """Whether the one line that agrees, above or below the gap, is the only one of its text."""
        return self.hashes.count(self.hashes[gap - 1 if above else gap]) == 1

    def places(self, alternatives: Sequence[Neighbours]) -> dict[int, int]:
        """How good each gap is, where enough neighbours agree: two, or one of a text that the file has once.

        Among gaps with as many, those below a known line are better than those above one, and the code base's own
        neighbours better than those of others.
        """
        found: dict[int, int] = {}
        for gap in range(len(self.numbers) + 1):
            for index, neighbours in enumerate(alternatives):
                above, below = self.score(gap, neighbours)
                if above + below > 1 or (above + below == 1 and self.unique(gap, above)):
                    quality = 4 * (above + below) + 2 * (above > 0) + (index == 0)
                    found[gap] = max(found.get(gap, 0), quality)
        return found

    def line_of(self, gap: int, alternatives: Sequence[Neighbours]) -> int:
        """The line after which to insert in a gap: right above the line below it, or right below the one above it."""
        above = max(self.score(gap, neighbours)[0] for neighbours in alternatives)
        if gap == len(self.numbers) or (above and not alternatives[0].detached):
            return self.numbers[gap - 1] + 1
        return self.numbers[gap]


def find_places(lines: Sequence[bytes], insertions: Sequence[Sequence[Neighbours]]) -> list[int]:
    """The line after which each insertion goes, in order, so that as many neighbours as possible agree; 0 for the top.

    Args:
        lines: all lines of the file.
        insertions: the possible neighbours of each, in the order of the patch.

    Raises:
        NoPlace: an insertion has none, or several that are equally good; its index is in `args[1]`.
    """
    file = _File(lines)
    candidates = [file.places(alternatives) for alternatives in insertions]
    for index, places in enumerate(candidates):
        if not places:
            raise NoPlace("no line around it is left", index)
    first = _best_chain(candidates)
    last = [-gap for gap in _best_chain([{-gap: score for gap, score in c.items()} for c in candidates[::-1]])][::-1]
    for index, (low, high) in enumerate(zip(first, last, strict=True)):
        if low != high:
            lines_there = ", ".join(str(file.line_of(gap, insertions[index]) + 1) for gap in (low, high))
            raise NoPlace(f"it would fit before lines {lines_there} alike", index)
    return [file.line_of(gap, alternatives) for gap, alternatives in zip(first, insertions, strict=True)]


def _best_chain(candidates: Sequence[dict[int, int]]) -> list[int]:
    """One gap of each, rising, with the greatest sum; of equal sums the one whose gaps come first.

    Raises:
        NoPlace: the gaps cannot rise.
    """
    best: dict[int, tuple[int, list[int]]] = {-(10**9): (0, [])}
    for index, places in enumerate(candidates):
        following: dict[int, tuple[int, list[int]]] = {}
        for gap in sorted(places):
            reached = [(total, chain) for end, (total, chain) in best.items() if end <= gap]
            if reached:
                total, chain = max(reached, key=lambda item: (item[0], [-g for g in item[1]]))
                following[gap] = (total + places[gap], [*chain, gap])
        if not following:
            raise NoPlace("its lines are not in the order that the patch expects", index)
        best = following
    return max(best.values(), key=lambda item: (item[0], [-g for g in item[1]]))[1]


def check_names(text: str, inserted: set[int]) -> None:
    """Compile, and see that names read by inserted lines are bound above them: by a parameter, a statement, an import.

    Args:
        text: the whole file's text.
        inserted: numbers of the inserted lines, from 1.

    Raises:
        SyntaxError: it does not compile.
        ValueError: a name is read before it exists.
    """
    tree = ast.parse(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # of lines that are not ours
        compile(text, "<patched>", "exec")
    for scopes, node in _reads(tree, []):
        if node.lineno not in inserted or hasattr(builtins, node.id):
            continue
        if not any(_bound(scope, node, innermost=scope is scopes[-1]) for scope in scopes):
            raise ValueError(f"line {node.lineno} would read {node.id!r} before it exists")


def _reads(node: ast.AST, scopes: list[ast.AST]) -> Iterator[tuple[list[ast.AST], ast.Name]]:
    """Every name that is read, with the scopes around it, outermost first."""
    if isinstance(node, (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        scopes = [*scopes, node]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
        yield scopes, node
    for child in ast.iter_child_nodes(node):
        outside = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and child in node.decorator_list
        yield from _reads(child, scopes[:-1] if outside else scopes)


def _bound(scope: ast.AST, read: ast.Name, innermost: bool) -> bool:
    """Whether a scope binds the name; in the innermost one, above where it is read."""
    if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        arguments = scope.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        if any(argument is not None and argument.arg == read.id for argument in every):
            return True
    return any(
        name == read.id and (not innermost or line < read.lineno)
        for statement in ast.iter_child_nodes(scope)
        for name, line in _bindings(statement)
    )


def _bindings(node: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a statement binds in its own scope, and on which line."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        yield node.name, node.lineno
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            yield (alias.asname or alias.name).split(".")[0], node.lineno
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id, node.lineno
    if isinstance(node, ast.ExceptHandler) and node.name:
        yield node.name, node.lineno
    if not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _bindings(child)
