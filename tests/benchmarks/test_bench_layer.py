"""The benchmark of the layer."""

from __future__ import annotations

import time

import pytest
import torch

from tests.scripts import load_script


def test_no_shape_is_begun_after_the_deadline_and_those_left_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = load_script("benchmarks/bench_layer.py")
    cases = [((size,), torch.float16, "NCHW") for size in range(4)]
    now = iter([0.0, 9.9, 10.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    assert list(module.begun_in_time(cases, 10.0)) == cases[:2]
    assert capsys.readouterr().out == "no time left for ((2,), torch.float16, 'NCHW') ((3,), torch.float16, 'NCHW')\n"


def test_features_that_a_kernel_moves_follow_from_its_name() -> None:
    module = load_script("benchmarks/bench_layer.py")
    moved = {
        "stream<Half, 5, false, false, true>": 2,
        "stream<Half, 5, false, true, true>": 3,
        "sums<Half, true, true>": 2,
        "contiguous_statistics<float, 4, true, true>": 1,
        "gates<float>": 0,
    }
    assert {name: module.moved_by(name) for name in moved} == moved
