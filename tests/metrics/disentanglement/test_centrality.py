"""ModelCentrality of models whose codes are those of others, mixed, or none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics.disentanglement.centrality import LEVELS, GeneratedGrid, Model, model_centrality

K = 3
FEW = {"num_train": 60, "num_eval": 60, "num_variance": 200, "vote_size": 16}


class Turned(nn.Module):
    """Images are the codes after an orthogonal map, one pixel each."""

    def __init__(self, turn: Tensor) -> None:
        super().__init__()
        self.num_codes = K
        self.register_buffer("turn", turn)

    def forward(self, codes: Tensor, noise_mode: str = "random") -> Tensor:
        assert noise_mode == "const"
        assert not self.training
        return (codes @ self.turn)[:, None, None]

    def read(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.turn.T


def model(turn: Tensor) -> Model:
    generator = Turned(turn)
    return Model(generator, generator.read)


PERMUTED = torch.eye(K)[[1, 2, 0]] * torch.tensor([1.0, -1.0, 1.0])
MIXED = torch.linalg.qr(torch.tensor([[1.0, 1, 1], [1, -1, 0], [1, 1, -2]])).Q


def test_models_with_the_same_codes_are_central_and_one_that_mixes_them_is_not() -> None:
    result = model_centrality([model(torch.eye(K)), model(PERMUTED), model(MIXED)], **FEW)
    scores, pairs = result.details["model_scores"], result.details["pair_scores"]
    assert pairs[0, 1] == pairs[1, 0] == 1
    assert max(pairs[2, 0], pairs[0, 2]) < 0.9
    assert scores.argmin() == 2
    assert result.score == scores.max()


def test_a_models_score_is_the_mean_over_its_pairs_in_both_directions() -> None:
    result = model_centrality([model(torch.eye(K)), model(PERMUTED), model(MIXED)], **FEW)
    pairs = result.details["pair_scores"]
    expected = [(pairs[0, 1] + pairs[1, 0] + pairs[0, 2] + pairs[2, 0]) / 4]
    np.testing.assert_allclose(result.details["model_scores"][:1], expected)


@pytest.mark.parametrize(("latents", "spread"), [("uniform", 4 / 12**0.5), ("normal", 1.0)])
def test_the_codes_of_a_grid_have_their_distribution(latents: str, spread: float) -> None:
    grid = GeneratedGrid(Turned(torch.eye(K)), latents)
    assert grid.factor_sizes == (LEVELS,) * K
    codes = grid.images(np.arange(LEVELS)[:, None].repeat(K, 1)).flatten(1)
    assert (codes.diff(dim=0) > 0).all()
    torch.testing.assert_close(codes.std(0), torch.full((K,), spread), rtol=0.01, atol=0)
    torch.testing.assert_close(codes.mean(0), torch.zeros(K), rtol=0, atol=1e-5)


def test_one_model_alone_and_an_unknown_distribution_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 are needed, got 1"):
        model_centrality([model(torch.eye(K))])
    with pytest.raises(ValueError, match="latents must be one of uniform, normal, got 'cauchy'"):
        model_centrality([model(torch.eye(K)), model(MIXED)], latents="cauchy")
