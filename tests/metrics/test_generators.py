"""What is measured is held still and checked."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch import Tensor, nn

from sc_layers.metrics.generators import Sampling, device_of, evaluating, fixed_noise, number_of_codes


def test_codes_are_the_same_for_a_seed_and_of_the_distribution_asked_for() -> None:
    assert torch.equal(Sampling().codes(4, 3), Sampling().codes(4, 3))
    assert not torch.equal(Sampling().codes(4, 3), Sampling(seed=1).codes(4, 3))
    uniform = Sampling(latents="uniform").codes(5000, 1)
    assert 1.9 < uniform.abs().max() <= 2


@pytest.mark.parametrize(
    ("options", "message"), [({"latents": "cauchy"}, "uniform, normal, got 'cauchy'"), ({"batch_size": 0}, "got 0")]
)
def test_sampling_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**options)


def test_the_device_is_the_one_asked_for_or_that_of_the_parameters() -> None:
    assert Sampling(device="meta").device_of(nn.Linear(1, 1)) == torch.device("meta")
    assert device_of(nn.Linear(1, 1, device="meta")) == torch.device("meta")
    assert device_of(lambda codes: codes) == torch.device("cpu")


def test_every_part_gets_its_own_mode_back_after_an_error_too() -> None:
    module = nn.Sequential(nn.Dropout(), nn.Dropout())
    module[1].eval()
    with contextlib.suppress(ZeroDivisionError), evaluating(module):
        assert not any(part.training for part in module.modules())
        _ = 1 / 0
    assert [module.training, module[0].training, module[1].training] == [True, True, False]


def test_noise_is_held_where_the_generator_takes_it() -> None:
    class Noisy(nn.Module):
        def forward(self, codes: Tensor, noise_mode: str = "random") -> str:
            return noise_mode

    with fixed_noise(Noisy()) as still:
        assert still(torch.zeros(1, 1)) == "const"


def test_the_number_of_codes_is_the_one_given_or_the_generators_own() -> None:
    assert number_of_codes(lambda codes: codes, 3) == 3
    with pytest.raises(ValueError, match="num_codes is needed"):
        number_of_codes(lambda codes: codes, None)
