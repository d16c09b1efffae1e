"""`sc-layers table`: kinds, formats, plots, mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tests.cli.running import assert_mistake, run
from tests.sweep import samples


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep's folder."""
    for number, one in enumerate(samples.herd()):
        place = tmp_path / "sweep" / f"{number:02d}"
        place.mkdir(parents=True)
        one.save(place)
    return tmp_path / "sweep"


@pytest.mark.parametrize(
    ("options", "start"),
    [
        ((), "| method | code-weight | runs |"),
        (("--kind", "lambda", "--format", "csv"), "method,code-weight,runs,failed,tpl_small_0.3 mean"),
        (("--format", "latex"), "\\begin{tabular}"),
        (("--kind", "correlations"), "| method | models | dci |"),
    ],
)
def test_every_kind_is_printed_in_the_format_asked_for(folder: Path, options: tuple[str, ...], start: str) -> None:
    result = run("table", folder, *options)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(start)


@pytest.mark.parametrize("kind", ["methods", "lambda", "correlations"])
def test_every_kind_has_a_plot(folder: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "plots" / f"{kind}.png"
    result = run("table", folder, "--kind", kind, "--plot", path)
    assert result.exit_code == 0, result.output
    assert min(Image.open(path).size) > 200


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        (("--kind", "rects"), ("rects does not vary",)),
        (("--min-active", "3"), ("go with --kind correlations",)),
        (("--model-centrality", "20"), ("go with --kind correlations",)),
        (("--plot", "x.pdf"), ("--plot writes PNG", "x.pdf")),
        (("--kind", "correlations", "--plot", "x.png", "--plot-metric", "fvm"), ("unknown metric 'fvm'",)),
    ],
)
def test_mistakes_are_named(folder: Path, options: tuple[str, ...], parts: tuple[str, ...]) -> None:
    assert_mistake(run("table", folder, *options), *parts)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    assert_mistake(run("table", tmp_path), "no results of a sweep")
