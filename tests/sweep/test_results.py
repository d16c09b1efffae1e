"""Results of runs in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.sweep.results import ORDER_FILE, RESULT_FILE, load_result, load_results, save_order
from tests.sweep import samples


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    for number, one in enumerate(samples.herd()):
        (tmp_path / f"{number:02d}").mkdir()
        one.save(tmp_path / f"{number:02d}")
    assert load_results(tmp_path) == samples.herd()


def test_results_are_in_the_order_of_the_grid_and_others_last(tmp_path: Path) -> None:
    for name, one in zip("cabd", samples.herd()[:4], strict=True):
        (tmp_path / name).mkdir()
        one.save(tmp_path / name)
    save_order(tmp_path, ["d", "never begun", "c"])
    assert load_results(tmp_path) == [samples.herd()[number] for number in (3, 0, 1, 2)]
    for text in ("{", "{}", "[[]]"):
        (tmp_path / ORDER_FILE).write_text(text)
        with pytest.raises(ValueError, match=r"runs\.json is no list of runs"):
            load_results(tmp_path)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    assert load_result(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no results of a sweep"):
        load_results(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"colour": 1}'])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is no result of a sweep"):
        load_result(tmp_path)
