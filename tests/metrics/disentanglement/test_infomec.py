"""InfoMEC: the authors' numbers, perfect and degenerate representations."""

from __future__ import annotations

import numpy as np
import pytest

from sc_layers.metrics.disentanglement.infomec import infomec, infomec_from_codes, normalized_information, peak_share
from tests.golden import load_golden
from tests.metrics.disentanglement.tables import Table, identity, perfect_table
from tests.tolerances import OPTIMISED, SAMPLED, SCORE


def test_infomec_is_that_of_the_authors_program() -> None:
    golden = load_golden("metrics_information")
    codes, factors = golden.numpy("codes").astype(float), golden.numpy("factors").astype(int)
    result = infomec_from_codes(codes, factors, seed=golden.config["mi_seed"])
    np.testing.assert_allclose(result.details["normalized_information"], golden.numpy("nmi"), atol=SCORE)
    assert result.details["num_active"] == golden.numpy("active").sum()
    assert result.score == result.details["infom"]
    for name in ("infom", "infoc"):
        assert result.details[name] == pytest.approx(golden.config[name], abs=SCORE)
    assert result.details["infoe"] == pytest.approx(golden.config["infoe"], abs=OPTIMISED)


def test_one_code_a_factor_is_modular_compact_and_explicit() -> None:
    details = infomec(identity, perfect_table(num_dead=2), num_samples=2000).details
    assert details["infom"] > 0.95
    assert details["infoc"] > 0.95
    assert details["infoe"] > 0.9
    assert details["num_active"] == 3


def test_one_code_of_all_factors_is_neither_modular_nor_explicit() -> None:
    table = perfect_table()
    mixed = Table(table.codes.sum(dim=1, keepdim=True).expand(-1, 3).numpy(), np.array(table.factor_sizes))
    details = infomec(identity, mixed, num_samples=2000).details
    assert details["infom"] < 0.3
    assert details["infoc"] < 0.1
    assert details["infoe"] < 0.5


def test_peak_share_is_0_for_even_rows_and_for_rows_of_nothing_and_1_for_single_entries() -> None:
    assert peak_share(np.full((2, 4), 0.3)) == pytest.approx(0)
    assert peak_share(np.zeros((2, 4))) == pytest.approx(0)
    assert peak_share(np.eye(4)) == pytest.approx(1)


def test_information_of_a_code_that_names_the_factor_is_its_entropy() -> None:
    factor = np.arange(400)[:, None] % 4
    assert normalized_information(factor + 0.0, factor)[0, 0] == pytest.approx(1, abs=SAMPLED)


def test_constant_codes_score_zero_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match="no code does"):
        assert infomec_from_codes(np.ones((50, 3)), np.arange(50)[:, None] % 4).score == 0


def test_a_factor_with_one_value_is_left_out_with_a_warning() -> None:
    with pytest.warns(RuntimeWarning, match=r"factors \[1\] take a single value"):
        result = infomec(identity, perfect_table((4, 1, 6)), num_samples=1000)
    assert result.details["infom"] > 0.9
