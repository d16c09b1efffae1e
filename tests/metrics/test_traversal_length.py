"""Traversal perceptual length: reference numbers, one pass an image, settings, bad generators."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sc_layers.checkpoints.foreign.tf_variables import config_from_tf, state_dict_from_tf
from sc_layers.metrics.distances import FeatureDistance, Features, MeanSquared
from sc_layers.metrics.generators import Sampling
from sc_layers.metrics.traversal_length import (
    TPL_PRESETS,
    TPLSettings,
    TraversalLength,
    tpl_preset,
    traversal_perceptual_length,
)
from sc_layers.models import Generator
from tests.golden import load_golden
from tests.metrics.stripes import Stripes
from tests.tolerances import GOLDEN_DISTANCE, GOLDEN_LOSS, SAMPLED, SCORE

SETTINGS = set(TPLSettings.__dataclass_fields__)
SAMPLING = set(Sampling.__dataclass_fields__)


def tpl(generator: Any, num_codes: int | None = None, distance: Any = "mse", **options: Any) -> TraversalLength:
    """The fields of settings and sampling by name."""
    settings = tpl_preset("tpl_small_0.3", **{name: options.pop(name) for name in SETTINGS & set(options)})
    sampling = Sampling(**{name: options.pop(name) for name in SAMPLING & set(options)})
    return traversal_perceptual_length(generator, num_codes, settings, distance=distance, sampling=sampling, **options)


def quiet_tpl(*args: Any, **kwargs: Any) -> TraversalLength:
    """Without the warning about few active codes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return tpl(*args, **kwargs)


@pytest.mark.parametrize("variant", ["bound4", "pm2"])
@pytest.mark.parametrize("name", ["a", "d"])
def test_tpl_is_that_of_the_authors_program(name: str, variant: str) -> None:
    golden, network = load_golden(f"tpl_{name}"), load_golden(f"gen_{name}")
    arguments = network.config["G_args"]
    size = {"resolution": network.config["resolution"], "num_channels": network.config["num_channels"]}
    config = config_from_tf(arguments["func_name"], {**arguments, **size})
    generator = Generator(config)
    generator.load_state_dict(state_dict_from_tf(config, network.group("Gs/")))
    for label in ("thresh0", "thresh1"):
        expected = golden.config["results"][f"{variant}/{label}"]
        result = tpl(
            generator,
            num_points=golden.config["n_samples_per_dim"],
            sweep="fixed" if variant == "bound4" else "relative",
            threshold=expected["active_thresh"],
            base_codes=golden[f"{variant}/latents"],
            distance="mse",
        )
        torch.testing.assert_close(
            result.pair_distances.float(), golden[f"{variant}/pair_distances"], **GOLDEN_DISTANCE
        )
        torch.testing.assert_close(result.per_dim.float(), golden[f"{variant}/tpl_per_dim"], **GOLDEN_LOSS)
        torch.testing.assert_close(result.std_per_dim.float(), golden[f"{variant}/std_per_dim"], **GOLDEN_DISTANCE)
        assert result.num_active == expected["n_active"]
        assert result.total == pytest.approx(expected["_sum_dist"], rel=GOLDEN_LOSS["rtol"])
        assert result.mean == pytest.approx(expected["_mean_dist"], rel=GOLDEN_LOSS["rtol"])
        assert result.mean_std == pytest.approx(expected["_mean_std"], rel=GOLDEN_DISTANCE["rtol"])
        assert result.norm == pytest.approx(expected["_norm_dist_std"], rel=GOLDEN_LOSS["rtol"])


@pytest.mark.parametrize(("reading", "distances"), [("points", 8), ("segments", 9)])
def test_both_readings_of_eq_11_sum_their_number_of_steps(reading: str, distances: int) -> None:
    result = quiet_tpl(Stripes([3.0, 1.0]), num_points=9, reading=reading, num_traversals=2, distance="mse")
    step = 8 / distances
    # One of two rows changes by strength * step, in units of 0..255.
    expected = [distances * (strength * step) ** 2 / 2 for strength in (3.0, 1.0)]
    assert result.pair_distances.shape == (2, 2, distances)
    assert result.per_dim.tolist() == pytest.approx(expected, rel=GOLDEN_DISTANCE["rtol"])


def test_a_relative_sweep_moves_around_the_base_codes() -> None:
    seen: list[Tensor] = []

    def generator(codes: Tensor) -> Tensor:
        seen.append(codes)
        return codes.view(-1, 1, 1, 2)

    bases = torch.tensor([[10.0, -20.0]])
    quiet_tpl(generator, num_points=3, sweep="relative", base_codes=bases, distance="mse")
    assert torch.cat(seen).tolist() == [[8, -20], [10, -20], [12, -20], [10, -22], [10, -20], [10, -18]]


class _CountingDistance(MeanSquared):
    def __init__(self) -> None:
        super().__init__()
        self.images_seen = 0

    def features(self, images: Tensor) -> Features:
        self.images_seen += len(images)
        return super().features(images)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 1000])
def test_every_image_is_generated_and_looked_at_once_whatever_the_batch(batch_size: int) -> None:
    generator, distance = Stripes([3.0, 1.0, 2.0]), _CountingDistance()
    result = quiet_tpl(generator, num_points=6, num_traversals=4, distance=distance, batch_size=batch_size, seed=3)
    assert generator.images_made == distance.images_seen == 3 * 6 * 4
    reference = quiet_tpl(generator, num_points=6, num_traversals=4, distance="mse", batch_size=11, seed=3)
    torch.testing.assert_close(result.pair_distances, reference.pair_distances)


def test_feature_and_pairwise_distances_agree() -> None:
    def pairwise(first: Tensor, second: Tensor) -> Tensor:
        return (first - second).square().mean((1, 2, 3))

    generator = Stripes([3.0, 1.0])
    results = [quiet_tpl(generator, num_points=5, distance=d, batch_size=4) for d in (pairwise, "mse")]
    torch.testing.assert_close(results[0].pair_distances, results[1].pair_distances)


def test_total_is_the_sum_over_active_codes_and_ranking_is_by_length() -> None:
    result = tpl(Stripes([1.0, 4.0, 0.01, 2.0]), distance="mse", threshold=0.3)
    assert result.ranking == [1, 3, 0, 2]
    assert result.active.tolist() == [True, True, False, True]
    assert result.total == pytest.approx(result.per_dim[[0, 1, 3]].sum().item(), abs=SCORE)
    assert result.mean == pytest.approx(result.total / 4, abs=SCORE)


def test_a_code_exactly_at_the_threshold_is_active() -> None:
    result = quiet_tpl(Stripes([1.0, 2.0]), distance="mse")
    exact = quiet_tpl(Stripes([1.0, 2.0]), distance="mse", threshold=result.per_dim[0].item())
    assert exact.active.tolist() == [True, True]


def test_the_seed_decides_the_result() -> None:
    class Curved(Stripes):
        def forward(self, codes: Tensor) -> Tensor:
            return super().forward(codes) * (1 + codes.sum(1).square().view(-1, 1, 1, 1))

    totals = [quiet_tpl(Curved([3.0, 1.0]), distance="mse", seed=seed).total for seed in (0, 0, 1)]
    assert totals[0] == totals[1] != totals[2]


def test_the_interval_covers_the_total_and_narrows_with_more_traversals() -> None:
    torch.manual_seed(0)
    bases = torch.randn(200, 2, dtype=torch.float64)

    def result(num: int) -> TraversalLength:
        noisy = 10 + torch.randn(num, 2, 4, dtype=torch.float64)
        return TraversalLength(noisy, bases[:num], TPLSettings(num_points=5, num_traversals=num))

    few, many = result(5), result(200)
    for measured in (few, many):
        assert measured.interval[0] < measured.total < measured.interval[1]
    assert many.interval[1] - many.interval[0] < 0.5 * (few.interval[1] - few.interval[0])


def test_a_single_traversal_has_a_defined_interval_and_deviation() -> None:
    result = quiet_tpl(Stripes([3.0, 1.0]), num_traversals=1, distance="mse")
    assert result.interval == pytest.approx((result.total, result.total))
    assert result.std_per_dim.tolist() == [0, 0]


def test_presets_are_those_of_the_paper() -> None:
    summary = {name: (s.num_images, s.num_traversals, s.threshold) for name, s in TPL_PRESETS.items()}
    assert summary == {
        "tpl_small_0.3": (25, 10, 0.3),
        "tpl_large_0.3": (49, 300, 0.3),
        "tpl_celeba": (49, 300, 0.3),
        "tpl_ffhq": (49, 300, 0.5),
        "tpl_dsprites": (51, 300, 0.01),
    }


def test_constant_codes_give_zero_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="0 of 2 codes are active"):
        result = tpl(Stripes([0.0, 0.0]), distance="mse")
    assert result.total == 0
    assert result.interval == (0, 0)
    assert result.table().count("no") == 2


def test_noise_is_fixed_and_the_mode_is_put_back() -> None:
    modes: list[tuple[str, bool]] = []

    class Noisy(Stripes):
        def forward(self, codes: Tensor, noise_mode: str = "random") -> Tensor:
            modes.append((noise_mode, self.training))
            return super().forward(codes)

    generator = Noisy([1.0, 2.0]).train()
    quiet_tpl(generator, distance="mse")
    assert set(modes) == {("const", False)}
    assert generator.training


def test_grey_and_colour_images_of_the_same_content_measure_the_same() -> None:
    grey = Stripes([3.0, 1.0])
    results = [quiet_tpl(g, 2, distance="mse") for g in (grey, lambda codes: grey(codes).expand(-1, 3, -1, -1))]
    assert results[0].total == pytest.approx(results[1].total)


def test_to_dict_fits_into_json_and_the_table_names_all_codes() -> None:
    result = quiet_tpl(Stripes([3.0, 1.0]), distance="mse")
    loaded = json.loads(json.dumps(result.to_dict()))
    assert loaded["total"] == result.total
    assert loaded["per_dim"] == result.per_dim.tolist()
    assert [line.split()[0] for line in str(result).splitlines()[3:]] == ["0", "1"]


def test_the_bar_plot_is_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    quiet_tpl(Stripes([3.0, 1.0, 0.0]), distance="mse").plot(tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


def test_the_progress_bar_counts_images(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    quiet_tpl(Stripes([3.0, 1.0]), num_points=4, num_traversals=2, distance="mse", progress=True)
    assert "/16" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (lambda codes: torch.zeros(len(codes), 3, 8), r"returned shape \(32, 3, 8\), expected images \[32, C, H, W\]"),
        (lambda codes: torch.zeros(1, 3, 8, 8), r"returned shape \(1, 3, 8, 8\)"),
        (lambda codes: (torch.zeros(len(codes), 3, 8, 8), None), "returned tuple"),
        (lambda codes: codes.sum(1).view(-1, 1, 1, 1).sqrt(), r"values that are not finite, first for the codes \["),
    ],
)
def test_a_generator_with_wrong_images_is_named(images: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tpl(images, 3, distance="mse")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_points": 1}, "at least 2 images"),
        ({"num_traversals": 0}, "num_traversals must be at least 1"),
        ({"reading": "images"}, "points, segments"),
        ({"sweep": "wide"}, "fixed, relative"),
        ({"extent": -1}, "extent must be positive"),
        ({"extent": float("inf")}, "extent must be positive and finite"),
        ({"threshold": float("nan")}, "threshold must be a finite number"),
        ({"num_codes": 0}, "num_codes must be at least 1, got 0"),
        ({"distance": lambda a, b: a.flatten(1).sum(1) / 0}, r"480 of 480 distances are not finite"),
        ({"base_codes": torch.zeros(3, 0)}, r"\[T, K\]"),
        ({"batch_size": 0}, "batch_size"),
        ({"confidence": 95}, "confidence must lie between 0 and 1"),
        ({"distance": "l2"}, "unknown distance"),
        ({"base_codes": torch.zeros(3)}, r"\[T, K\]"),
        ({"base_codes": torch.zeros(3, 5), "num_codes": 2}, "num_codes is 2"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tpl(Stripes([1.0, 2.0]), **{"distance": "mse", **settings})


def test_a_bare_function_needs_the_number_of_codes() -> None:
    with pytest.raises(ValueError, match="num_codes is needed"):
        tpl(lambda codes: codes.view(-1, 1, 1, 2), distance="mse")


def test_a_distance_may_be_any_feature_distance() -> None:
    class Brightness(FeatureDistance):
        def features(self, images: Tensor) -> Features:
            return (images.mean((2, 3)),)

    result = quiet_tpl(Stripes([3.0, 1.0]), distance=Brightness())
    assert result.per_dim[0] == pytest.approx(9 * result.per_dim[1].item(), rel=GOLDEN_DISTANCE["rtol"])


def test_an_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unknown TPL preset 'tpl_tiny'; presets: tpl_small"):
        traversal_perceptual_length(Stripes([1.0, 2.0]), settings="tpl_tiny", distance="mse")


def test_base_codes_come_from_the_distribution_that_is_asked_for() -> None:
    bases = quiet_tpl(Stripes([3.0, 1.0]), num_traversals=400, num_points=2, latents="uniform").base_codes
    assert bases.abs().max() <= 2
    assert bases.std() == pytest.approx(4 / 12**0.5, rel=SAMPLED)  # a normal one has 1
    assert quiet_tpl(Stripes([3.0, 1.0]), num_traversals=400, num_points=2).base_codes.abs().max() > 2
