"""The rotation curve: the authors' grids, minima where axes are interpretable, the plot."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sc_layers.metrics.generators import Sampling
from sc_layers.metrics.rotation import RotationCurve, rotated_codes, rotation_curve
from tests.golden import load_golden
from tests.tolerances import ROUNDING, SCORE


@pytest.mark.parametrize("angle", [0, 30, -45])
def test_rotated_grids_are_those_of_the_authors_program(angle: int) -> None:
    golden = load_golden("util")
    settings, expected = golden.config["rotgrid"], golden[f"rotgrid_{angle}"]
    codes = rotated_codes(
        expected[0], tuple(settings["latent_pair"]), angle, settings["n_samples_per"], settings["bound"]
    )
    torch.testing.assert_close(codes.flatten(0, 1), expected, atol=ROUNDING["atol"], rtol=0)


def test_row_distances_accumulate_to_the_authors_number() -> None:
    golden = load_golden("util")
    images = golden["rot_imgs"]

    def stored(codes: Tensor) -> Tensor:
        stored.start += len(codes)
        return images[stored.start - len(codes) : stored.start]

    stored.start = 0
    curve = rotation_curve(stored, (1, 4), 6, angles=[0], num_points=5, distance="mse", sampling=Sampling(batch_size=7))
    assert curve.distances[0] == pytest.approx(float(golden["rot_dist"]), rel=ROUNDING["rtol"])


def two_factors(codes: Tensor) -> Tensor:
    """Code 0 moves a bump in the left half of the image, code 1 one in the right half."""
    places = torch.linspace(-4, 4, 16)
    bumps = torch.exp(-((places - codes[:, :2, None]) ** 2))
    return bumps.view(len(codes), 1, 2, 16) * 2 - 1


def absolute(first: Tensor, second: Tensor) -> Tensor:
    return (first - second).abs().mean((1, 2, 3))


def test_minima_lie_where_the_axes_are_the_factors() -> None:
    curve = rotation_curve(two_factors, (0, 1), 3, distance=absolute, num_points=11)
    assert curve.angles[0] == -90
    assert set(curve.minima) >= {-90, 0, 90, 180}
    assert max(curve.distances) > 1.1 * curve.distances[curve.angles.index(0)]


def test_every_image_is_generated_once() -> None:
    made = []

    def counting(codes: Tensor) -> Tensor:
        made.append(len(codes))
        return two_factors(codes)

    rotation_curve(counting, (0, 1), 3, angles=[0, 30], num_points=4, distance="mse", sampling=Sampling(batch_size=5))
    assert sum(made) == 2 * 4 * 4


def test_the_ends_of_the_curve_are_judged_by_half_a_turn() -> None:
    angles = tuple(float(a) for a in range(-90, 181, 30))
    distances = tuple(math.sin(math.radians(2 * a)) ** 2 for a in angles)
    assert RotationCurve((0, 1), angles, distances).minima == [-90, 0, 90, 180]


def test_an_end_without_a_known_neighbour_is_no_minimum() -> None:
    assert RotationCurve((0, 1), (0.0, 30.0, 60.0), (1.0, 2.0, 3.0)).minima == []
    assert RotationCurve((0, 1), (0.0, 30.0, 60.0), (3.0, 2.0, 3.0)).minima == [30.0]


def test_the_table_and_dictionary_mark_the_minima() -> None:
    curve = RotationCurve((0, 1), (0.0, 30.0, 60.0), (3.0, 2.0, 3.0))
    assert [line.endswith("minimum") for line in str(curve).splitlines()] == [False, False, True, False]
    assert curve.to_dict() == {
        "codes": [0, 1],
        "angles": [0, 30, 60],
        "distances": [3, 2, 3],
        "minima": [30],
    }


def test_the_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    RotationCurve((0, 1), (0.0, 30.0, 60.0), (3.0, 2.0, 3.0)).plot(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("pair", "arguments", "message"),
    [
        ((1, 1), {}, "two different codes"),
        ((0, 7), {}, "code 7 does not exist: there are 3 codes"),
        ((0, 1), {"num_points": 1}, "at least 2 points"),
        ((0, 1), {"angles": [30, 0]}, "increasing"),
        ((0, 1), {"angles": []}, "at least one"),
        ((0, 1), {"base": torch.zeros(1, 3)}, r"\[K\]"),
    ],
)
def test_wrong_settings_are_named(pair: tuple[int, int], arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotation_curve(two_factors, pair, 3, distance="mse", **arguments)


def test_the_others_codes_keep_their_base_values() -> None:
    base = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    codes = rotated_codes(base, (0, 2), 45, 3)
    assert (codes[..., 1] == 2).all()
    assert codes[1, 1, 0].item() == pytest.approx(0, abs=SCORE)
