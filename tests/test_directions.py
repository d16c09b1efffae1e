"""SeFa and GANSpace against their formulas and against other programs; directions as codes, and as plain data."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from sc_layers.directions import Directions, ganspace, sefa


def _weights() -> list[torch.Tensor]:
    draws = torch.Generator().manual_seed(0)
    return [torch.randn(outputs, 5, generator=draws) for outputs in (4, 6, 3)]


# What `factorize_weight` of genforce/sefa and closed_form_factorization.py of rosinality give for these weights; the
# sign of a direction is arbitrary.
@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        (
            True,
            [
                [0.6116787, 0.48103547, 0.27281797, 0.27853572, -0.4923842],
                [-0.20613869, -0.19064222, 0.8754516, 0.32254323, 0.22519493],
                [-0.43037045, 0.74146193, -0.1590467, 0.37559792, 0.3140793],
            ],
        ),
        (
            False,
            [
                [0.469985515, 0.695399880, -0.092589825, 0.204456076, -0.495133311],
                [-0.051764440, 0.121766686, 0.879910052, 0.435271561, 0.137076691],
                [0.670390427, -0.552699745, 0.292250991, -0.261209190, -0.302421331],
            ],
        ),
    ],
)
def test_sefa_gives_the_numbers_of_other_programs(normalize: bool, expected: list[list[float]]) -> None:
    found = sefa(_weights(), 3, normalize=normalize)
    signs = (found * torch.tensor(expected)).sum(1, keepdim=True).sign()
    torch.testing.assert_close(found * signs, torch.tensor(expected), rtol=0, atol=1e-6)


def test_sefa_finds_the_unit_step_that_changes_styles_most() -> None:
    weights = torch.cat(_weights()).double()
    units = sefa([weights], 5, normalize=False)
    torch.testing.assert_close(units @ units.T, torch.eye(5, dtype=torch.float64))
    random = torch.nn.functional.normalize(torch.randn(1000, 5, generator=torch.Generator().manual_seed(1)), dim=1)
    assert (random.double() @ weights.T).norm(dim=1).max() < (weights @ units[0]).norm()


def test_components_are_those_of_scikit_learn() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    draws = torch.Generator().manual_seed(0)
    for width in (5, 60):  # less and more than samples
        samples = torch.randn(40, width, generator=draws, dtype=torch.float64)
        steps = ganspace(samples, 3)
        theirs = decomposition.PCA(3, svd_solver="full").fit(samples.numpy())
        expected = torch.from_numpy(theirs.components_ * theirs.explained_variance_[:, None] ** 0.5)
        signs = (steps * expected).sum(1, keepdim=True).sign()
        torch.testing.assert_close(steps * signs, expected, rtol=1e-7, atol=1e-9)


def test_latents_follow_from_the_components_of_features_by_least_squares() -> None:
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(500, 3, generator=draws, dtype=torch.float64)
    mixing = torch.tensor([[5.0, 0, 0, 0], [0, 0, 2.0, 0]], dtype=torch.float64)
    steps = ganspace(latents[:, :2] @ mixing + 7, 2, latents)  # features tell nothing of the third latent
    torch.testing.assert_close(steps.abs(), torch.eye(2, 3, dtype=torch.float64), rtol=0, atol=0.15)
    assert steps.abs()[:, 2].max() > 0


@pytest.mark.parametrize("count", [0, 6])
def test_more_directions_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"count must be from 1 to 5, .* got {count}"):
        sefa(_weights(), count)


def test_components_of_no_variance_are_refused() -> None:
    samples = torch.randn(30, 2, generator=torch.Generator().manual_seed(0)) @ torch.ones(2, 4)
    with pytest.raises(ValueError, match="fewer than 2 directions"):
        ganspace(samples, 2)
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        ganspace(samples[:1], 1)


def _directions(**changes: Any) -> Directions:
    fields = {"method": "sefa", "steps": torch.tensor([[2.0, 0, 0], [0, 0.5, 0]]), "mean": torch.ones(3), "rows": [1]}
    return Directions(**{**fields, **changes})


def test_codes_move_their_rows_to_their_coordinates_and_leave_the_rest() -> None:
    directions = _directions()
    ws = torch.randn(1, 3, 5, generator=torch.Generator().manual_seed(0))
    codes = torch.tensor([[1.0, -2.0], [0.0, 0.0]])
    moved = directions.moved(ws, codes)
    torch.testing.assert_close(directions.coordinates(moved[:, 1, :3]), codes)
    assert torch.equal(moved[:, [0, 2]], ws[:, [0, 2]].expand(2, -1, -1))
    assert torch.equal(moved[:, 1, 2:], ws[:, 1, 2:].expand(2, -1))
    torch.testing.assert_close(directions.moved(ws, directions.coordinates(ws[:, 1, :3])), ws)


def test_directions_come_back_from_json() -> None:
    directions = _directions(latents="uniform")
    again = Directions.from_dict(json.loads(json.dumps(directions.to_dict())))
    assert again.to_dict() == directions.to_dict()
    assert torch.equal(again.steps, directions.steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": [[1.0], [2.0, 3.0]]}, "steps of directions is a list, expected numbers"),
        ({"steps": [[float("nan"), 0, 0]]}, "not finite"),
        ({"mean": [0.0]}, "around a mean of shape"),
        ({"steps": []}, "directions of shape"),
        ({"rows": []}, "rows of directions are a list"),
        ({"rows": [-1]}, "rows of directions are a list"),
        ({"method": 3}, "method of directions is 3, expected a text"),
        ({"other": 3}, "expected a mapping of latents, mean, method, rows, steps"),
    ],
)
def test_data_that_is_no_directions_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Directions.from_dict({**_directions().to_dict(), **changes})
