from __future__ import annotations

import itertools
import os

import pytest

from sc_layers.data.loading import default_workers, in_order, usable_cpus


def _square(number: int) -> int:
    return number**2


def _process(number: int) -> int:
    return os.getpid()


def _refuse_three(number: int) -> int:
    if number == 3:
        raise ValueError("three is refused")
    return number


@pytest.mark.parametrize("workers", [0, 2])
def test_results_come_in_the_order_of_the_numbers(workers: int) -> None:
    assert list(in_order(_square, [3, 1, 2, 5], workers)) == [9, 1, 4, 25]


def test_numbers_may_have_no_end() -> None:
    assert list(itertools.islice(in_order(_square, itertools.count(4), 2), 3)) == [16, 25, 36]


def test_workers_are_processes() -> None:
    assert len(set(in_order(_process, range(4), 2)) - {os.getpid()}) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refusal_comes_in_its_turn_with_its_own_words(workers: int) -> None:
    results = in_order(_refuse_three, range(5), workers)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match=r"^three is refused$"):
        next(results)


def _die(number: int) -> int:
    os._exit(1)


def _break(number: int) -> int:
    raise RuntimeError("broken")


def test_a_worker_that_dies_is_told_with_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"a process that reads ahead ended by itself.*--workers 0"):
        next(in_order(_die, range(2), 1))


def test_another_error_in_a_worker_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="broken"):
        next(in_order(_break, range(2), 1))


def test_there_are_no_more_workers_than_cpus() -> None:
    assert 1 <= default_workers() <= usable_cpus()
