from __future__ import annotations

import functools
import itertools
import os
import pickle

import pytest

from sc_layers.data.per_process import PerProcess

_openings = itertools.count()


def _open(name: str) -> tuple[str, int]:
    return name, next(_openings)


def test_a_file_is_opened_once() -> None:
    file = PerProcess(functools.partial(_open, "a"))
    assert file.get() is file.get()


@pytest.mark.parametrize("survives_fork", [False, True])
def test_another_process_opens_its_own_unless_what_is_open_survives(
    survives_fork: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = PerProcess(functools.partial(_open, "a"), survives_fork)
    first = file.get()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert (file.get() is first) == survives_fork


def test_a_copy_opens_its_own() -> None:
    file = PerProcess(functools.partial(_open, "a"), survives_fork=True)
    first, copied = file.get(), pickle.loads(pickle.dumps(file)).get()
    assert copied[0] == first[0]
    assert copied[1] > first[1]
