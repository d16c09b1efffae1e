"""What one file may cost."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.checkpoints.pickles.limits import MAX_TOKENS, AllocationLimit, Budget


def test_a_file_may_unfold_to_a_multiple_of_its_size_and_no_more() -> None:
    budget = Budget(1 << 20)
    budget.charge(budget.bytes_left)
    with pytest.raises(CheckpointError, match="unfolds to much more data than the file holds"):
        budget.charge(1)


def test_tokens_are_counted() -> None:
    budget = Budget(0)
    budget.tokens_left = 1
    budget.token()
    with pytest.raises(CheckpointError, match=f"more than {MAX_TOKENS} tokens"):
        budget.token()


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.zeros(1 << 40),
        lambda: torch.empty((1 << 20, 1 << 20)),
        lambda: torch.randn(1 << 20, 1 << 20),
        lambda: torch.full(size=(1 << 40,), fill_value=0.0),
        lambda: torch.arange(1 << 40),
        lambda: nn.Linear(1 << 20, 1 << 20),
    ],
)
def test_tensors_beyond_the_budget_are_refused_before_they_take_memory(make: Callable[[], object]) -> None:
    with AllocationLimit(Budget(0)), pytest.raises(CheckpointError, match="unfolds to much more"):
        make()


def test_small_tensors_are_made() -> None:
    with AllocationLimit(Budget(0)):
        made: list[Tensor] = [torch.zeros(2, 3), torch.arange(6), torch.full((2,), 1.0)]
    assert [tuple(tensor.shape) for tensor in made] == [(2, 3), (6,), (2,)]
