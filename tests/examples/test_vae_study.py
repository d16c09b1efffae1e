"""The VAE study runs, resumes, and prints Table 1's correlations; its losses do what they say."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from tests.scripts import load_script
from tests.tolerances import SAMPLED_LOSS


@pytest.fixture(scope="module")
def study() -> ModuleType:
    return load_script("examples/vae_study.py")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:rank correlation:RuntimeWarning")
def test_the_study_prints_correlations_and_goes_on_where_it_stopped(study: ModuleType, tmp_path: Path) -> None:
    arguments = ["--outdir", str(tmp_path), "--images", "256", "--distance", "mse", "--effort", "0.05", "--seeds", "1"]
    first = CliRunner().invoke(study.main, [*arguments, "--methods", "factor_vae"])
    assert first.exit_code == 0, first.output
    assert "factor_vae-6-0 " in first.output
    again = CliRunner().invoke(study.main, [*arguments, "--methods", "factor_vae"])
    assert "factor_vae-6-0 " not in again.output
    assert again.output.splitlines()[0].split() == ["method", "models", "BVM", "DCI", "FVM", "MIG"]
    models = [json.loads(line) for line in (tmp_path / "models.jsonl").read_text().splitlines()]
    assert [model["name"] for model in models] == ["factor_vae-2-0", "factor_vae-6-0", "factor_vae-12-0"]
    correlations = json.loads((tmp_path / "correlations.json").read_text())
    assert set(correlations) == {"TPL (act>0)", "TPL (act>2)", "TPL (act>3)", "TPL (act>4)", "FVM"}
    assert correlations["FVM"]["models"] == 3
    assert (tmp_path / "tpl_dci.png").stat().st_size > 1000


def test_the_gain_is_of_the_seed_with_the_least_tpl_in_each_setting(study: ModuleType) -> None:
    results = [
        {"method": method, "strength": 1, "tpl": tpl, "scores": {"MIG": mig}}
        for method, tpl, mig in (("a", 1.0, 0.5), ("a", 2.0, 0.3), ("b", 4.0, 0.1), ("b", 3.0, 0.5), ("c", 1.0, 0.9))
    ]
    gain, low, high = study.gain_by_choice(results, "MIG")
    assert gain == pytest.approx((0.1 + 0.2) / 2)
    assert (low, high) == (pytest.approx(0.1), pytest.approx(0.2))
    assert study.gain_by_choice(results[-1:], "MIG") is None


def batch(study: ModuleType, mean: torch.Tensor, std: float = 0.1, progress: float = 1.0) -> Any:
    log_var = torch.full_like(mean, 2 * torch.tensor(std).log().item())
    codes = mean + std * torch.randn_like(mean)
    return study.Batch(mean, log_var, codes, progress)


def test_kl_is_that_of_gaussians(study: ModuleType) -> None:
    drawn = batch(study, torch.randn(50, 3), std=0.5)
    posterior = torch.distributions.Normal(drawn.mean, (0.5 * drawn.log_var).exp())
    expected = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(drawn.kl, expected)


def test_total_correlation_is_near_zero_for_independent_codes_and_positive_for_equal_ones(study: ModuleType) -> None:
    independent = torch.randn(1000, 2)
    equal = independent[:, :1].repeat(1, 2)
    estimates = [float(study.total_correlation(batch(study, codes, std=0.3))) for codes in (independent, equal)]
    # Two equal standard normals plus noise of variance 0.09 have correlation 1 / 1.09.
    expected = -0.5 * torch.log(torch.tensor(1 - (1 / 1.09) ** 2)).item()
    assert abs(estimates[0]) < 0.15
    assert estimates[1] == pytest.approx(expected, rel=SAMPLED_LOSS)


def test_dip_vae_penalises_correlation_and_variance_other_than_one(study: ModuleType) -> None:
    independent = torch.randn(2000, 2)
    loss = study.dip_loss(1.0, second=False)
    good, correlated = batch(study, independent), batch(study, independent[:, :1].repeat(1, 2))
    assert float(loss(good) - good.kl) < 0.05
    assert float(loss(correlated) - correlated.kl) == pytest.approx(2, rel=SAMPLED_LOSS)
    wide = batch(study, 2 * independent)
    assert float(loss(wide) - wide.kl) == pytest.approx(2 * 10 * 9, rel=SAMPLED_LOSS)
    # The second kind adds the codes' own variance.
    second = study.dip_loss(1.0, second=True)
    assert float(second(batch(study, independent * 0, std=1.0)) - batch(study, independent * 0, std=1.0).kl) < 0.01


def test_annealed_vae_pulls_kl_to_the_capacity_of_the_moment(study: ModuleType) -> None:
    loss = study.annealed_loss(capacity=10.0, weight=2.0)
    drawn = batch(study, torch.randn(50, 3), progress=0.5)
    torch.testing.assert_close(loss(drawn), 2 * (drawn.kl - 5).abs())


def test_the_factor_vae_discriminator_learns_to_tell_dependent_codes(study: ModuleType) -> None:
    loss = study.FactorVAELoss(gamma=1.0)
    mean = torch.randn(256, 1).repeat(1, study.NUM_CODES)
    start = loss(batch(study, mean))
    for _ in range(100):
        last = loss(batch(study, mean))
    assert last > start + 0.2
    assert all(parameter.requires_grad for parameter in loss.discriminator.parameters())


def test_an_unknown_method_lists_the_known_ones(study: ModuleType) -> None:
    result = CliRunner().invoke(study.main, ["--methods", "vq_vae"])
    assert result.exit_code == 2
    assert "unknown method 'vq_vae'; methods: beta_vae, annealed_vae" in result.output
