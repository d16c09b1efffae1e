from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sc_layers.data import Dataset, DSprites, open_dataset
from sc_layers.data.checking import BackgroundCheck, find_damaged
from tests.data.files import random_pixels, write_pngs


def _with_damage(folder: Path, *indices: int) -> Dataset:
    paths = write_pngs(folder, random_pixels(6))
    for index in indices:
        paths[index].write_bytes(paths[index].read_bytes()[:100])
    return open_dataset(folder)


class _Slow(DSprites):
    """A data set whose pictures take longer than a test."""

    def picture(self, index: int) -> np.ndarray:
        time.sleep(60)
        return super().picture(index)


def _until_finished(check: BackgroundCheck) -> None:
    deadline = time.monotonic() + 60
    while not check.finished and time.monotonic() < deadline:
        check.raise_if_damaged()
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_pictures_are_found_in_their_places(tmp_path: Path, workers: int) -> None:
    found = list(find_damaged(_with_damage(tmp_path, 1, 4), workers))
    assert [message is not None for message in found] == [False, True, False, False, True, False]
    assert found[4] is not None
    assert "004.png cannot be read as an image" in found[4]


def test_a_check_beside_the_training_ends_it_with_the_name_of_the_picture(tmp_path: Path) -> None:
    with (
        BackgroundCheck(_with_damage(tmp_path, 5)) as check,
        pytest.raises(ValueError, match=r"005\.png cannot be read as an image.*dataset info .* --skip-bad"),
    ):
        _until_finished(check)


def test_a_check_of_whole_pictures_finishes_in_silence(tmp_path: Path) -> None:
    with BackgroundCheck(_with_damage(tmp_path)) as check:
        _until_finished(check)
        assert check.finished
        check.raise_if_damaged()


@pytest.mark.parametrize("handler", [signal.SIG_DFL, lambda number, frame: None], ids=["default", "noted"])
def test_a_check_that_is_left_leaves_no_process(handler: Any) -> None:
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with BackgroundCheck(_Slow()) as check:
            process = check._process
            assert process.is_alive()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not process.is_alive()


def test_a_check_whose_process_dies_says_so() -> None:
    with BackgroundCheck(_Slow()) as check:
        check._process.kill()
        with pytest.raises(RuntimeError, match=r"the process that checks dsprites ended by itself"):
            _until_finished(check)
