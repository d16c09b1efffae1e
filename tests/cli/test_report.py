"""`sc-layers report`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.running import assert_mistake, run


def test_the_page_lies_in_the_run_or_where_it_is_asked_for(run_dir: Path, tmp_path: Path) -> None:
    result = run("report", run_dir, "--out", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert f"look at {tmp_path / 'page.html'}" in result.output
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    assert_mistake(run("report", tmp_path), "training_options.json")
    assert not list(tmp_path.iterdir())
