"""Traversal perceptual length: reference numbers, one pass an image, settings, hook, bad generators."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sc_layers.checkpoints.foreign.tf_variables import config_from_tf, state_dict_from_tf
from sc_layers.metrics.distances import FeatureDistance, Features, MeanSquared
from sc_layers.metrics.traversal_length import (
    TPL_PRESETS,
    TPLSettings,
    TraversalLength,
    TraversalLengthHook,
    traversal_perceptual_length,
    traversal_picture,
)
from sc_layers.models import Generator
from tests.golden import load_golden
from tests.tolerances import SCORE


class Stripes(nn.Module):
    """Code k shifts the brightness of one row of a 4x4 image by `strengths[k]`; keeps how many images it made."""

    def __init__(self, strengths: list[float]) -> None:
        super().__init__()
        self.strengths = nn.Parameter(torch.tensor(strengths))
        self.num_codes = len(strengths)
        self.images_made = 0

    def forward(self, codes: Tensor) -> Tensor:
        self.images_made += len(codes)
        rows = (codes * self.strengths / 127.5).view(len(codes), 1, -1, 1)
        return rows.expand(-1, -1, -1, 4)


def quiet_tpl(*args: Any, **kwargs: Any) -> TraversalLength:
    """Without the warning about few active codes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return traversal_perceptual_length(*args, **kwargs)


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
        result = traversal_perceptual_length(
            generator,
            num_points=golden.config["n_samples_per_dim"],
            sweep="fixed" if variant == "bound4" else "relative",
            threshold=expected["active_thresh"],
            base_codes=golden[f"{variant}/latents"],
            distance="mse",
        )
        close = {"rtol": 1e-4, "atol": 1e-4}
        torch.testing.assert_close(result.pair_distances.float(), golden[f"{variant}/pair_distances"], **close)
        torch.testing.assert_close(result.per_dim.float(), golden[f"{variant}/tpl_per_dim"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(result.std_per_dim.float(), golden[f"{variant}/std_per_dim"], **close)
        assert result.num_active == expected["n_active"]
        assert result.total == pytest.approx(expected["_sum_dist"], rel=1e-5)
        assert result.mean == pytest.approx(expected["_mean_dist"], rel=1e-5)
        assert result.mean_std == pytest.approx(expected["_mean_std"], rel=1e-4)
        assert result.norm == pytest.approx(expected["_norm_dist_std"], rel=1e-5)


@pytest.mark.parametrize(("reading", "distances"), [("points", 8), ("segments", 9)])
def test_both_readings_of_eq_11_sum_their_number_of_steps(reading: str, distances: int) -> None:
    result = quiet_tpl(Stripes([3.0, 1.0]), num_points=9, reading=reading, num_traversals=2, distance="mse")
    step = 8 / distances
    # One of two rows changes by strength * step, in units of 0..255.
    expected = [distances * (strength * step) ** 2 / 2 for strength in (3.0, 1.0)]
    assert result.pair_distances.shape == (2, 2, distances)
    assert result.per_dim.tolist() == pytest.approx(expected, rel=1e-4)


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
    result = traversal_perceptual_length(Stripes([1.0, 4.0, 0.01, 2.0]), distance="mse", threshold=0.3)
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
        "celeba": (49, 300, 0.3),
        "ffhq": (49, 300, 0.5),
        "dsprites": (51, 300, 0.01),
    }


def test_constant_codes_give_zero_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="0 of 2 codes are active"):
        result = traversal_perceptual_length(Stripes([0.0, 0.0]), distance="mse")
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
        traversal_perceptual_length(images, 3, distance="mse")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "tpl_tiny"}, "unknown TPL preset 'tpl_tiny'; presets: tpl_small_0.3, tpl_large_0.3, celeba"),
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
        ({"base_codes": torch.zeros(3, 2), "num_traversals": 4}, "there are 3 base_codes"),
        ({"base_codes": torch.zeros(3, 5), "num_codes": 2}, "num_codes is 2"),
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        traversal_perceptual_length(Stripes([1.0, 2.0]), **{"distance": "mse", **settings})


def test_a_bare_function_needs_the_number_of_codes() -> None:
    with pytest.raises(ValueError, match="num_codes is needed"):
        traversal_perceptual_length(lambda codes: codes.view(-1, 1, 1, 2), distance="mse")


class _Writer:
    def __init__(self) -> None:
        self.scalars: dict[str, tuple[float, int]] = {}
        self.images: dict[str, tuple[Tensor, int]] = {}

    def add_scalar(self, tag: str, value: float, global_step: int) -> None:
        self.scalars[tag] = (value, global_step)

    def add_image(self, tag: str, image: Tensor, global_step: int) -> None:
        self.images[tag] = (image, global_step)


def test_the_hook_measures_every_so_many_steps_and_logs(tmp_path: Path) -> None:
    writer = _Writer()
    hook = TraversalLengthHook(tmp_path, every=10, distance="mse", writer=writer)
    generator = Stripes([3.0, 1.0, 2.0])
    results = [hook(generator, step, snapshot=f"net{step}.pkl") for step in range(11)]
    assert [step for step, result in enumerate(results) if result is not None] == [0, 10]
    lines = [json.loads(line) for line in (tmp_path / "metric-tpl_small_0.3.jsonl").read_text().splitlines()]
    assert [line["snapshot_pkl"] for line in lines] == ["net0.pkl", "net10.pkl"]
    assert lines[1]["metric"] == "tpl_small_0.3"
    assert lines[1]["results"]["tpl_small_0.3"] == results[10].total
    assert {"total_time", "timestamp"} <= set(lines[1])
    assert writer.scalars == {
        "Metrics/tpl_small_0.3": (results[10].total, 10),
        "Metrics/tpl_small_0.3_active": (3, 10),
    }
    assert writer.images["Traversal/tpl_small_0.3"][0].shape == (1, 3 * 3, 7 * 4)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["traversal-000000.png", "traversal-000010.png"]


def test_the_hook_follows_the_trainers_snapshots(tmp_path: Path) -> None:
    hook = TraversalLengthHook(every=2, preset="celeba", num_traversals=1, distance="mse", pictures=False)
    for seen in (1000, 2000, 3000):
        hook.after_snapshot(SimpleNamespace(G_ema=Stripes([3.0, 1.0]), images_seen=seen), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metric-tpl_celeba.jsonl").read_text().splitlines()]
    assert [line["snapshot_pkl"] for line in lines] == [
        "network-snapshot-000001.safetensors",
        "network-snapshot-000003.safetensors",
    ]


def test_traversal_pictures_are_ordered_by_length() -> None:
    generator = Stripes([1.0, 40.0, 10.0])
    picture = traversal_picture(generator, quiet_tpl(generator, distance="mse"), points=5)
    assert picture.shape == (1, 3 * 3, 5 * 4)
    # Code 1 moves the middle row of its image most, and is the first row of the grid.
    inner = picture[0].reshape(3, 3, 5, 4)[:, 1, :, 1].float()
    assert inner.std(dim=1).argmax() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"every": 0}, ValueError, "every"),
        ({"preset": "x"}, ValueError, "unknown TPL preset"),
        ({"picture_points": 1}, ValueError, "picture_points must be at least 2"),
        ({"numcodes": 3}, TypeError, "numcodes"),
        ({"run_dir": "no-such-folder"}, NotADirectoryError, "no-such-folder"),
    ],
)
def test_the_hook_refuses_wrong_settings_at_once(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TraversalLengthHook(distance="mse", **arguments)


def test_a_distance_may_be_any_feature_distance() -> None:
    class Brightness(FeatureDistance):
        def features(self, images: Tensor) -> Features:
            return (images.mean((2, 3)),)

    result = quiet_tpl(Stripes([3.0, 1.0]), distance=Brightness())
    assert result.per_dim[0] == pytest.approx(9 * result.per_dim[1].item(), rel=1e-3)
