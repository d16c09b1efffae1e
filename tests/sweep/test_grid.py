"""Grids: the runs they stand for, and every mistake in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from sc_layers.sweep.grid import Grid, arguments, read_grid


def test_every_method_value_and_seed_is_combined_seed_by_seed() -> None:
    grid = Grid(["mig"], {"data": "dsprites"}, {"a": {}, "b": {"mask": "none"}}, {"rects": [1, 2]}, [0, 5])
    assert [run.name for run in grid.runs()] == [
        *("a-rects1-seed0", "a-rects2-seed0", "b-rects1-seed0", "b-rects2-seed0"),
        *("a-rects1-seed5", "a-rects2-seed5", "b-rects1-seed5", "b-rects2-seed5"),
    ]
    last = grid.runs()[-1]
    assert last.train == {"data": "dsprites", "mask": "none", "rects": 2}
    assert last.setting == {"method": "b", "rects": 2}


def test_a_run_is_measured_on_the_images_it_was_trained_on_unless_others_are_named() -> None:
    train = {"data": "dsprites", "resolution": 32, "kimg": 1}
    (run,) = Grid(["mig", "dci"], train).runs()
    assert run.measure == {"metrics": "mig,dci", "data": "dsprites", "resolution": 32}
    (run,) = Grid(["mig"], train, measure={"data": "other.npz", "effort": 0.1}).runs()
    assert run.measure == {"metrics": "mig", "data": "other.npz", "resolution": 32, "effort": 0.1}


def test_flags_stand_alone_on_the_command_line() -> None:
    assert arguments({"full": True, "num-images": 4}) == ["--full", "--num-images", "4"]


def test_a_file_names_what_it_needs_and_the_rest_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("train: {data: dsprites}\nmetrics: [mig]\nseeds: 3\n")
    assert [run.name for run in read_grid(path).runs()] == ["PS-SC-seed0", "PS-SC-seed1", "PS-SC-seed2"]
    path.write_text("metrics: [mig]\nseeds: [4, 7]\nmethods: {a: , b: {mask: none}}\n")
    assert [run.name for run in read_grid(path).runs()] == ["a-seed4", "b-seed4", "a-seed7", "b-seed7"]


# Lists of the same lists, 2**40 texts if they are ever written out.
BOMB = "metrics: &a0 [mig, mig]\nvary:\n" + "".join(f"  k{n}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(40))
BOMB += "train: *a40\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "grid.yaml: while parsing"),
        ("[1]", r"a grid has train, methods, vary, seeds, metrics, measure, got a list"),
        ("metrics: [mig]\ncolour: 3", "got 'colour'"),
        ("train: {}", "metrics must be a list of values, got None"),
        ("metrics: []", "at least one value of metrics"),
        ("metrics: [mig]\nvary: {rects: 3}", "rects must be a list of values, got 3"),
        ("metrics: [mig]\nvary: {rects: []}", "at least one value of rects"),
        ("metrics: [mig]\nseeds: 0", "at least one value of seeds"),
        (
            "metrics: [mig]\nseeds: 1-3",
            "seeds must be how many there are, up to 10000, or a list of whole numbers, got '1-3'",
        ),
        ("metrics: [mig]\nseeds: [-1]", "seeds must be"),
        ("metrics: [mig]\nseeds: 1000000000", "seeds must be how many there are, up to 10000"),
        ("metrics: [mig]\nseeds: 10000\nvary: {rects: [1, 2]}", "at most 10000 runs, got 20000"),
        (BOMB, "train must name settings with their values, got a list"),
        ("metrics: [mig]\nseeds: [1, 1]", "PS-SC-seed1 twice"),
        ("metrics: [mig]\ntrain: 3", "train must name settings with their values, got 3"),
        ("metrics: [mig]\nmethods: {a: 3}", "a must name settings with their values, got 3"),
        ("metrics: [mig]\ntrain: {seed: 3}", "the sweep itself gives --seed to `sc-layers train`"),
        ("metrics: [mig]\nmethods: {a: {outdir: x}}", "the sweep itself gives --outdir"),
        ("metrics: [mig]\nmeasure: {json: true}", "the sweep itself gives --json to `sc-layers metrics`"),
    ],
)
def test_mistakes_in_a_file_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_grid(path)
