"""Results of runs in files."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.sweep.results import RESULT_FILE, load_result, load_results
from tests.sweep import samples


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    for number, one in enumerate(samples.herd()):
        (tmp_path / f"{number:02d}").mkdir()
        one.save(tmp_path / f"{number:02d}")
    assert load_results(tmp_path) == samples.herd()


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    assert load_result(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no results of a sweep"):
        load_results(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", '{"colour": 1}'])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / RESULT_FILE).write_text(text)
    with pytest.raises(ValueError, match=r"result\.json is no result of a sweep"):
        load_result(tmp_path)
