"""Reads a pickle without running it: a small stack machine over the tokens that `pickletools` finds.

Every name that the pickle asks for is looked up in a closed table of our own functions; nothing is imported. Objects
become records. Work and memory are bounded by the size of the file.
"""

from __future__ import annotations

import io
import pickletools
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import CheckpointError, UntrustedCheckpointError
from .limits import OBJECT, Budget

_LARGEST_KEY = 2**63
_LONGEST_INTEGER = 1024  # bits: the older files of torch.save begin with a number of 77

Construct = Callable[[tuple[Any, ...], dict[str, Any]], Any]


@dataclass(frozen=True)
class Name:
    """A name of the closed table, as the pickle's stack holds it, and what it makes of arguments."""

    module: str
    name: str
    construct: Construct


@dataclass(frozen=True)
class Constant:
    """A name of the closed table that stands for a plain value."""

    value: Any


Table = Mapping[tuple[str, str], Construct | Constant]
_MARK = object()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
_LITERALS = frozenset((
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
))  # fmt: skip
_PUTS = frozenset(["PUT", "BINPUT", "LONG_BINPUT"])
_GETS = frozenset(["GET", "BINGET", "LONG_BINGET"])
_IGNORED = frozenset(["PROTO", "FRAME"])
_EXTENSIONS = frozenset(["EXT1", "EXT2", "EXT4"])
_BUFFERS = frozenset(["NEXT_BUFFER", "READONLY_BUFFER"])
_SHORT_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def _check_key(key: Any) -> Any:
    """Only plain keys: nested tuples hash in exponential time, and huge integers can be made to collide."""
    if key is not None and not isinstance(key, (str, bytes, bool, int, float)):
        raise CheckpointError(f"a {type(key).__name__} as the key of a dict or member of a set")
    if isinstance(key, int) and not -_LARGEST_KEY <= key < _LARGEST_KEY:
        raise CheckpointError("an integer of more than 64 bits as a key")
    return key


class Machine:
    """The stack machine for one pickle.

    Args:
        names: the closed table, by (module, name).
        budget: shared by all pickles of a file.
        persistent: makes an object of a persistent id, for the formats that have them.
    """

    def __init__(
        self,
        names: Table,
        budget: Budget,
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.names = names
        self.budget = budget
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: io.BytesIO) -> Any:
        """Read one pickle from `stream`, which is left just behind it.

        Raises:
            CheckpointError: not a valid pickle, or one beyond the limits.
            UntrustedCheckpointError: it asks for a name outside the table.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of strange escapes in texts
                for opcode, argument, _ in pickletools.genops(stream):
                    self.budget.token()
                    if opcode.name == "STOP":
                        return self._pop()
                    self._step(opcode.name, argument)
        except CheckpointError:
            raise
        except (ValueError, OverflowError) as error:  # what genops raises for bytes that are no pickle
            raise CheckpointError(f"not a valid pickle: {error!s:.200}") from error
        raise CheckpointError("a pickle without an end")

    def _step(self, opcode: str, argument: Any) -> None:
        if opcode in _LITERALS:
            self._literal(argument)
        elif opcode in _CONSTANTS:
            self.budget.charge(OBJECT)
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _GETS:
            self._get(int(argument))
        elif opcode == "MEMOIZE":
            self._put(len(self.memo))
        elif opcode in _PUTS:
            self._put(int(argument))
        elif opcode in _SHORT_TUPLES:
            self.stack.append(tuple(self._pop_several(_SHORT_TUPLES[opcode])))
        elif opcode in _EXTENSIONS:
            raise UntrustedCheckpointError(f"the checkpoint asks for entry {argument} of the extension registry")
        elif opcode in _BUFFERS:
            raise CheckpointError("the pickle needs buffers that are not in the file")
        elif opcode not in _IGNORED:
            getattr(self, f"_op_{opcode.lower()}")(argument)

    def _literal(self, value: Any) -> None:
        if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
            raise CheckpointError(f"an integer of {value.bit_length()} bits")
        self.budget.charge(sys.getsizeof(value))
        self.stack.append(value)

    def _top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise CheckpointError("not a valid pickle: the stack is empty")
        return self.stack[-1]

    def _pop(self) -> Any:
        value = self._top()
        self.stack.pop()
        return value

    def _pop_several(self, count: int) -> list[Any]:
        return [self._pop() for _ in range(count)][::-1]

    def _pop_mark(self) -> list[Any]:
        items: list[Any] = []
        while self.stack:
            item = self.stack.pop()
            if item is _MARK:
                self.budget.charge(OBJECT * (1 + len(items)))
                return items[::-1]
            items.append(item)
        raise CheckpointError("not a valid pickle: no mark on the stack")

    def _put(self, index: int) -> None:
        self.budget.charge(OBJECT)
        self.memo[index] = self._top()

    def _get(self, index: int) -> None:
        if index not in self.memo:
            raise CheckpointError(f"not a valid pickle: nothing was remembered as number {index}")
        self.stack.append(self.memo[index])

    def _find(self, module: Any, name: Any) -> Any:
        known = isinstance(module, str) and isinstance(name, str) and (module, name) in self.names
        if not known:
            raise UntrustedCheckpointError(
                f"the checkpoint asks for {module!s:.100}.{name!s:.100}, which is not needed to read any "
                "known checkpoint; nothing of it was run"
            )
        entry = self.names[module, name]
        return entry.value if isinstance(entry, Constant) else Name(module, name, entry)

    def _make(self, target: Any, args: Any, kwargs: Any) -> Any:
        self.budget.charge(OBJECT)
        if not isinstance(target, Name):
            raise CheckpointError(f"the pickle calls a {type(target).__name__}")
        if not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise CheckpointError(f"the pickle calls {target.name} with a {type(args).__name__}")
        return target.construct(args, kwargs)

    def _op_mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _op_pop(self, _: Any) -> None:
        if not self.stack:
            raise CheckpointError("not a valid pickle: the stack is empty")
        self.stack.pop()

    def _op_pop_mark(self, _: Any) -> None:
        self._pop_mark()

    def _op_dup(self, _: Any) -> None:
        self.stack.append(self._top())

    def _op_list(self, _: Any) -> None:
        self.stack.append(self._pop_mark())

    def _op_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def _op_dict(self, _: Any) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._set_items(items)

    def _op_frozenset(self, _: Any) -> None:
        self.stack.append(frozenset(map(_check_key, self._pop_mark())))

    def _op_additems(self, _: Any) -> None:
        items = self._pop_mark()
        if not isinstance(self._top(), set):
            raise CheckpointError("the pickle adds to something that is not a set")
        self._top().update(map(_check_key, items))

    def _op_append(self, _: Any) -> None:
        self._extend([self._pop()])

    def _op_appends(self, _: Any) -> None:
        self._extend(self._pop_mark())

    def _extend(self, items: list[Any]) -> None:
        if not isinstance(self._top(), list):
            raise CheckpointError("the pickle appends to something that is not a list")
        self._top().extend(items)

    def _op_setitem(self, _: Any) -> None:
        self._set_items(self._pop_several(2))

    def _op_setitems(self, _: Any) -> None:
        self._set_items(self._pop_mark())

    def _set_items(self, items: list[Any]) -> None:
        if not isinstance(self._top(), dict) or len(items) % 2:
            raise CheckpointError("the pickle sets items of something that is not a dict, or a key without value")
        self._top().update(zip(map(_check_key, items[::2]), items[1::2], strict=True))

    def _op_global(self, argument: str) -> None:
        self.stack.append(self._find(*argument.split(" ", 1)))

    def _op_stack_global(self, _: Any) -> None:
        self.stack.append(self._find(*self._pop_several(2)))

    def _op_reduce(self, _: Any) -> None:
        target, args = self._pop_several(2)
        self.stack.append(self._make(target, args, {}))

    _op_newobj = _op_reduce

    def _op_newobj_ex(self, _: Any) -> None:
        self.stack.append(self._make(*self._pop_several(3)))

    def _op_inst(self, argument: str) -> None:
        args = tuple(self._pop_mark())
        self.stack.append(self._make(self._find(*argument.split(" ", 1)), args, {}))

    def _op_obj(self, _: Any) -> None:
        items = self._pop_mark()
        if not items:
            raise CheckpointError("not a valid pickle: no class before the arguments")
        self.stack.append(self._make(items[0], tuple(items[1:]), {}))

    def _op_build(self, _: Any) -> None:
        state = self._pop()
        build = getattr(type(self._top()), "build", None)
        if build is None:
            raise CheckpointError(f"the pickle sets the state of a {type(self._top()).__name__}")
        build(self._top(), state)

    def _op_persid(self, argument: Any) -> None:
        if self.persistent is None:
            raise CheckpointError("the pickle refers to something outside of it, which its format does not have")
        self.stack.append(self.persistent(argument))

    def _op_binpersid(self, _: Any) -> None:
        self._op_persid(self._pop())
