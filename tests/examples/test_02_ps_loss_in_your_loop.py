"""The loss in a loop of one's own."""

from __future__ import annotations

import pytest

from tests.examples.running import run_example


def _errors(line: str) -> list[float]:
    return [float(number) for number in line.partition("[")[2].rstrip("]").split(",")]


@pytest.mark.slow
def test_the_recogniser_learns_to_read_codes() -> None:
    lines = run_example("02_ps_loss_in_your_loop.py", "--steps", 60).splitlines()
    assert lines[0].startswith("before:")
    assert lines[-1].startswith("after:")
    assert sum(_errors(lines[-1])) < 0.9 * sum(_errors(lines[0]))
