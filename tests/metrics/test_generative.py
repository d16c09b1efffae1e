"""FID and KID against closed forms, their numbers of images, and the cache of real features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics.distances import EfficientNetLite
from sc_layers.metrics.features import FeatureCache
from sc_layers.metrics.generative import fid, kid
from sc_layers.metrics.generators import Sampling
from tests.tolerances import SAMPLED

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
    result = fid(flat_generator(0.2, 0.2), Flat(0.0, 0.1), 3, features=MeanColour())
    expected = 3 * 127.5**2 * (0.2**2 + (0.2 - 0.1) ** 2)
    assert result.score == pytest.approx(expected, rel=SAMPLED)
    assert result.details == {"num_reals": 2000, "num_fakes": 2000}
    assert result.note == "2,000 of the standard's 50,000 images"


def test_kid_is_zero_for_the_same_distribution_and_positive_for_another() -> None:
    options = {"num_images": 1000, "num_subsets": 20, "subset_size": 200, "features": MeanColour()}
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
    options = {"num_images": 400, "features": ShallowFeatures()}
    options |= {"subset_size": 200, "num_subsets": 10} if metric is kid else {}
    data = Flat(0.0, 0.3, size=16)
    scores = [metric(flat_generator(shift, 0.3, size=16), data, 3, **options).score for shift in (0.0, 0.8)]
    assert scores[1] > 3 * abs(scores[0])


def test_results_depend_on_the_seed_alone_and_leave_the_callers_random_numbers() -> None:
    def noisy(codes: Tensor) -> Tensor:
        return flat_generator(0.0, 0.1)(codes) + 0.05 * torch.randn(len(codes), 3, 4, 4)

    before = torch.get_rng_state()
    options = {"num_images": 200, "features": MeanColour()}
    scores = [fid(noisy, Flat(0.0, 0.1), 3, sampling=Sampling(seed=seed), **options).score for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_images": 1}, "num_images must be at least 2, got 1"),
        ({"features": "resnet"}, "unknown feature network 'resnet'; known ones: inception, efficientnet"),
    ],
)
def test_wrong_settings_of_fid_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fid(flat_generator(0, 0.1), Flat(0, 0.1), 3, **{"num_images": 10, "features": MeanColour(), **arguments})


def test_kid_needs_a_subset_of_images() -> None:
    with pytest.raises(ValueError, match="at least 100"):
        kid(flat_generator(0, 0.1), Flat(0, 0.1), 3, num_images=50, subset_size=100, features=MeanColour())


def test_a_generator_with_broken_images_is_named() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fid(lambda codes: flat_generator(0, 1)(codes) / 0, Flat(0, 0.1), 3, num_images=10, features=MeanColour())


def test_more_images_than_the_data_has_compares_with_all_of_it() -> None:
    result = fid(flat_generator(0.0, 0.1), Flat(0.0, 0.1, num=50), 3, num_images=80, features=MeanColour())
    assert result.details == {"num_reals": 50, "num_fakes": 80}


def test_the_full_standard_is_50000_images_against_all_without_a_note() -> None:
    result = fid(
        flat_generator(0.0, 0.1, 1),
        Flat(0.0, 0.1, 3000, 1),
        3,
        num_images=None,
        features=MeanColour(),
        sampling=Sampling(batch_size=5000),
    )
    assert result.details == {"num_reals": 3000, "num_fakes": 50_000}
    assert result.note == ""


def test_codes_come_from_the_distribution_that_is_asked_for() -> None:
    def codes_seen(latents: str) -> Tensor:
        seen: list[Tensor] = []

        def generator(codes: Tensor) -> Tensor:
            seen.append(codes)
            return flat_generator(0.0, 0.1)(codes)

        fid(generator, Flat(0.0, 0.1), 3, num_images=500, features=MeanColour(), sampling=Sampling(latents=latents))
        return torch.cat(seen)

    assert codes_seen("uniform").abs().max() <= 2
    assert codes_seen("normal").abs().max() > 2


class CountingColour(MeanColour):
    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1), requires_grad=False)
        self.images_seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images_seen += len(images)
        return self.gain * super().forward(images)


def test_features_of_real_images_are_computed_once_for_each_data_network_and_choice(tmp_path: Path) -> None:
    network, cache, generator = CountingColour(), FeatureCache(tmp_path), flat_generator(0.0, 0.1)

    def looked_at(data: Flat, num: int = 100, seed: int = 0) -> int:
        before = network.images_seen
        fid(generator, data, 3, num_images=num, features=network, cache=cache, sampling=Sampling(seed=seed))
        return network.images_seen - before

    data = Flat(0.0, 0.1)
    assert looked_at(data) == 200
    assert looked_at(data) == 100  # the generated ones alone
    assert looked_at(data, num=50) == 100
    assert looked_at(data, seed=1) == 200
    assert looked_at(Flat(0.1, 0.1)) == 200
    assert looked_at(Flat(0.0, 0.1, num=1999)) == 200
    network.gain.mul_(2)
    assert looked_at(data) == 200


def test_a_changed_file_of_the_data_set_is_another_data_set(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(b"one")
    data, cache = Flat(0.0, 0.1), FeatureCache(tmp_path / "cache")
    data.name = str(tmp_path / "data")
    before = cache.path(data, np.arange(9), MeanColour())
    assert cache.path(data, np.arange(9), MeanColour()) == before
    (tmp_path / "data" / "a.png").write_bytes(b"another")
    assert cache.path(data, np.arange(9), MeanColour()) != before


def test_scores_from_the_cache_are_the_same_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    cache, options = FeatureCache(tmp_path), {"num_images": 100, "features": MeanColour()}
    scores = [fid(flat_generator(0.1, 0.1), Flat(0.0, 0.1), 3, cache=cache, **options).score for _ in range(2)]
    assert scores[0] == scores[1]
    (file,) = tmp_path.glob("features-*.npy")
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"features-.*damaged: delete the file"):
        fid(flat_generator(0.1, 0.1), Flat(0.0, 0.1), 3, cache=cache, **options)


def test_progress_counts_real_and_generated_images(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    options = {"num_images": 70, "features": MeanColour(), "sampling": Sampling(progress=True)}
    fid(flat_generator(0.0, 0.1), Flat(0.0, 0.1), 3, **options)
    shown = capsys.readouterr().err
    assert "real images" in shown
    assert "generated images" in shown
    assert "/70" in shown
