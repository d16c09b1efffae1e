"""FID, KID and PPL on a small real feature network, against closed forms and the authors' percentile rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics import weights as weights_module
from sc_layers.metrics.distances import EfficientNetLite
from sc_layers.metrics.generative import (
    EfficientNetFeatures,
    InceptionFeatures,
    fid,
    kid,
    make_features,
    ppl,
    reject_tails,
)
from tests.golden import load_golden

pytest.importorskip("torchmetrics")


class MeanColour(nn.Module):
    """Three features: the mean of each channel."""

    num_features = 3

    def forward(self, images: Tensor) -> Tensor:
        assert images.dtype == torch.uint8
        return images.float().mean((2, 3))


class Flat:
    """Real images of one random colour each."""

    def __init__(self, mean: float, std: float, num: int = 2000, size: int = 4) -> None:
        self.size = size
        colours = torch.from_numpy(np.random.RandomState(0).normal(mean, std, (num, 3))).float()
        self.bytes = (colours * 127.5 + 127.5).round().clamp(0, 255).byte()

    def __len__(self) -> int:
        return len(self.bytes)

    def images_at(self, indices: Any) -> Tensor:
        return self.bytes[torch.as_tensor(indices)][..., None, None].expand(-1, -1, self.size, self.size)


def flat_generator(mean: float, std: float, size: int = 4) -> Any:
    return lambda codes: (codes * std + mean)[..., None, None].expand(-1, -1, size, size)


def test_fid_of_two_gaussians_is_their_frechet_distance() -> None:
    result = fid(flat_generator(0.2, 0.2), Flat(0.0, 0.1), 3, num_fakes=2000, features=MeanColour())
    expected = 3 * 127.5**2 * (0.2**2 + (0.2 - 0.1) ** 2)
    assert result.score == pytest.approx(expected, rel=0.05)
    assert result.details == {"num_reals": 2000, "num_fakes": 2000}


def test_kid_is_zero_for_the_same_distribution_and_positive_for_another() -> None:
    options = {"num_fakes": 1000, "num_subsets": 20, "subset_size": 200, "features": MeanColour()}
    same = kid(flat_generator(0.0, 0.1), Flat(0.0, 0.1), 3, **options).score
    other = kid(flat_generator(0.3, 0.1), Flat(0.0, 0.1), 3, **options).score
    assert abs(same) < 0.01 * other


class ShallowFeatures(nn.Module):
    """The first 24 channels of a trained network that are a quarter of the image's size, averaged."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        self.network = EfficientNetLite()

    def forward(self, images: Tensor) -> Tensor:
        return self.network._maps(images.float())[0][1].mean(dim=(2, 3))


@pytest.mark.parametrize("metric", [fid, kid])
def test_scores_on_a_real_network_grow_with_a_shift_of_the_images(metric: Any) -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    options = {"num_reals": 400, "num_fakes": 400, "features": ShallowFeatures()}
    options |= {"subset_size": 200, "num_subsets": 10} if metric is kid else {}
    data = Flat(0.0, 0.3, size=16)
    scores = [metric(flat_generator(shift, 0.3, size=16), data, 3, **options).score for shift in (0.0, 0.8)]
    assert scores[1] > 3 * abs(scores[0])


def test_results_depend_on_the_seed_alone_and_leave_the_callers_random_numbers() -> None:
    def noisy(codes: Tensor) -> Tensor:
        return flat_generator(0.0, 0.1)(codes) + 0.05 * torch.randn(len(codes), 3, 4, 4)

    before = torch.get_rng_state()
    options = {"num_fakes": 200, "num_reals": 200, "features": MeanColour()}
    scores = [fid(noisy, Flat(0.0, 0.1), 3, seed=seed, **options).score for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_ppl_of_a_linear_generator_is_its_mean_squared_speed() -> None:
    """G(c) = a c moves by a eps (c' - c), so a distance of mean squares gives a^2 |c' - c|^2 / K / eps^2 * eps^2."""
    speed = 0.02
    result = ppl(
        lambda codes: (codes * speed)[:, None, None, :],
        4,
        num_samples=4000,
        epsilon=1e-2,
        percentiles=(0, 100),
        distance="mse",
    )
    assert result.score == pytest.approx(2 * (speed * 127.5) ** 2, rel=0.05)
    assert result.details["num_kept"] == 4000


def test_ppl_leaves_out_the_tails() -> None:
    result = ppl(lambda codes: (codes * 0.02)[:, None, None, :], 4, num_samples=1000, epsilon=1e-2, distance="mse")
    assert 970 < result.details["num_kept"] < 1000


def test_tails_are_rejected_as_in_the_authors_program() -> None:
    golden = load_golden("util")
    low, high, mean = golden.numpy("ppl_lo_hi_mean").tolist()
    kept = reject_tails(golden.numpy("ppl_all").astype(float))
    assert kept.min() == pytest.approx(low, rel=1e-6)
    assert kept.max() == pytest.approx(high, rel=1e-6)
    assert kept.mean() == pytest.approx(mean, rel=1e-6)


def test_ppl_with_the_offline_network_is_finite_at_the_papers_step() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")

    def smooth(codes: Tensor) -> Tensor:
        return torch.sin(codes.sum(1)[:, None, None, None] + torch.linspace(0, 6, 32)).expand(-1, 3, 32, -1)

    score = ppl(smooth, 3, num_samples=16, distance=EfficientNetLite()).score
    assert np.isfinite(score)
    assert score > 0


@pytest.mark.slow
def test_inception_runs_from_a_weights_file(tmp_path: Path) -> None:
    """The network that FID is defined by, with random weights in a file of the published layout."""
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    outline = module.FeatureExtractorInceptionV3
    reading, module.load_state_dict_from_url = module.load_state_dict_from_url, lambda *_, **__: {}
    strict, outline.load_state_dict = outline.load_state_dict, lambda *_: None
    try:
        state = outline("inception-v3-compat", ["2048"]).state_dict()
    finally:
        module.load_state_dict_from_url, outline.load_state_dict = reading, strict
    torch.save(state, tmp_path / "inception.pth")
    features = InceptionFeatures(tmp_path / "inception.pth")(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
    assert features.shape == (2, 2048)
    assert features.isfinite().all()


class _ScriptedInception(nn.Module):
    def forward(self, images: Tensor, return_features: bool = False) -> Tensor:
        means = images.float().mean(dim=(2, 3))
        return means if return_features else means * 0


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_inception_is_asked_for_features(tmp_path: Path) -> None:
    torch.jit.script(_ScriptedInception()).save(str(tmp_path / "inception.pt"))
    images = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    assert InceptionFeatures(tmp_path / "inception.pt")(images).tolist() == [[7.0] * 3] * 2


def test_missing_inception_weights_offline_are_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def unreachable(*_: Any, **__: Any) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", unreachable)
    with pytest.raises(FileNotFoundError, match=r"no route.*weights-inception-2015-12-05.*--feature-weights"):
        make_features("inception")
    assert weights_module.cached_path("https://a/b.pth") == tmp_path / "checkpoints" / "b.pth"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_reals": 5000}, "data set has 2000 images"),
        ({"num_fakes": 1}, "at least 2 real and generated"),
        ({"features": "resnet"}, "unknown feature network 'resnet'; known ones: inception, efficientnet"),
        ({"features": MeanColour(), "weights": "x.pth"}, "the one given is ready"),
    ],
)
def test_wrong_settings_of_fid_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fid(flat_generator(0, 0.1), Flat(0, 0.1), 3, **{"num_fakes": 10, "features": MeanColour(), **arguments})


def test_kid_needs_a_subset_of_images() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        kid(flat_generator(0, 0.1), Flat(0, 0.1), 3, num_fakes=50, subset_size=100, features=MeanColour())


@pytest.mark.parametrize("arguments", [{"num_samples": 0}, {"percentiles": (99, 1)}, {"distance": "l2"}])
def test_wrong_settings_of_ppl_are_named(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"num_samples|percentiles|unknown distance"):
        ppl(flat_generator(0, 0.1), 3, **{"num_samples": 10, "distance": "mse", **arguments})


def test_a_generator_with_broken_images_is_named() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fid(lambda codes: flat_generator(0, 1)(codes) / 0, Flat(0, 0.1), 3, num_fakes=10, features=MeanColour())


def test_offline_features_are_those_of_the_distances_network_at_its_own_size() -> None:
    pytest.importorskip("efficientnet_lite_pytorch")
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8)
    features = EfficientNetFeatures()
    torch.testing.assert_close(features(images), EfficientNetLite().pooled(images.float()))
    small = features(images[..., :32, :32])
    assert (small > 0).float().mean() > 0.05
