"""Passes that are recorded once and replayed, as a stand-in on the CPU records them, and on a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from sc_layers.training import TrainingConfig, TrainingState
from sc_layers.training.config import MODELS
from sc_layers.training.graphs import Graphs, Recorded, obstacle
from sc_layers.training.processes import Processes
from sc_layers.training.step import training_step
from tests.tolerances import SAME_FORMULA
from tests.training.tiny import JOINING, MASKED_LAST, TINY, tiny_model, tiny_state

PASSES = {"generator", "discriminator", "R1"}
on_card = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")]


class _Replayed(Graphs):
    """Records on any device, by running a pass again on the same inputs into the same outputs."""

    def _recorded_on(self, device: torch.device, function: Callable[..., Any], static: tuple[Tensor, ...]) -> Recorded:
        for _ in range(2):
            function(*static)  # as a warm-up does: adds to gradients, and draws random numbers
        outputs = tuple(output.clone() for output in function(*static))

        def replay() -> None:
            for output, value in zip(outputs, function(*static), strict=True):
                output.copy_(value)

        return Recorded(static, outputs, replay)


@pytest.fixture
def cpu_as_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: torch.get_rng_state())
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: torch.set_rng_state(state))


def _trained(state: TrainingState, steps: int = 3) -> list[dict[str, Tensor]]:
    device = next(state.G.parameters()).device
    draws = torch.Generator().manual_seed(1)
    return [
        training_step(state, (torch.rand(TINY.batch, 3, 32, 32, generator=draws) * 2 - 1).to(device))
        for _ in range(steps)
    ]


@pytest.mark.usefixtures("cpu_as_card")
@pytest.mark.parametrize("config", [*map(tiny_model, MODELS), JOINING], ids=[*MODELS, "joining"])
def test_replayed_passes_train_as_passes_do(config: TrainingConfig) -> None:
    eager, replayed = (tiny_state(config, modules=MASKED_LAST) for _ in range(2))
    replayed.graphs = _Replayed(True)
    expected, losses = _trained(eager), _trained(replayed)
    assert set(replayed.graphs._recorded) == PASSES
    assert losses == expected
    for ours, theirs in zip(replayed.G_ema.parameters(), eager.G_ema.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.usefixtures("cpu_as_card")
def test_what_a_pass_returned_stays_when_it_is_replayed() -> None:
    graphs, optimizer = _Replayed(True), torch.optim.SGD([torch.zeros(1)])
    results = [graphs.run("double", lambda x: (2 * x,), optimizer, torch.tensor(value))[0] for value in (1.0, 2.0)]
    assert results == [2.0, 4.0]


@pytest.mark.usefixtures("cpu_as_card")
def test_a_pass_that_cannot_be_recorded_runs_as_it_is_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Graphs, device: torch.device, function: Callable[..., Any], static: tuple[Tensor, ...]) -> Recorded:
        function(*static)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(Graphs, "_recorded_on", fail)
    eager, failing = tiny_state(), tiny_state()
    failing.graphs = Graphs(True)
    with pytest.warns(
        UserWarning, match="the generator pass cannot be recorded: operation not permitted when stream is"
    ):
        losses = _trained(failing)
    assert not failing.graphs.enabled
    assert losses == _trained(eager)


@pytest.mark.parametrize(
    ("changes", "count", "reason"),
    [
        ({}, 1, None),
        ({}, 2, "several processes share the training"),
        ({"augment": "ada"}, 1, "augment is 'ada'"),
        ({"cascade_kimg": 1.0}, 1, "cascade_kimg changes which code is perturbed"),
    ],
)
def test_what_cannot_be_recorded_is_named(changes: dict[str, Any], count: int, reason: str | None) -> None:
    assert obstacle(TrainingConfig(**changes), Processes(0, count)) == reason


def test_nothing_is_recorded_on_a_cpu() -> None:
    assert not tiny_state().graphs.enabled


def _on_card(config: TrainingConfig) -> TrainingState:
    with torch.device("cuda"):
        return tiny_state(config, modules=MASKED_LAST)


@contextmanager
def _nothing_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


class TestOnACard:
    pytestmark = on_card

    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    @pytest.mark.parametrize("model", MODELS)
    def test_graphs_train_as_passes_do(self, model: str, precision: str) -> None:
        config = tiny_model(model).replace(precision=precision)
        eager, recorded = _on_card(config.replace(cuda_graphs=False)), _on_card(config)
        expected, losses = _trained(eager), _trained(recorded)
        assert set(recorded.graphs._recorded) == PASSES
        close = SAME_FORMULA[torch.float32] if precision == "fp32" else {"rtol": 0.05, "atol": 0.02}
        for ours, theirs in zip(losses, expected, strict=True):
            torch.testing.assert_close(ours, theirs, **close)

    def test_a_graph_draws_the_random_numbers_of_its_pass(self) -> None:
        optimizer = torch.optim.SGD([torch.zeros(1, device="cuda", requires_grad=True)])
        graphs, x = Graphs(True), torch.zeros(5, device="cuda")
        for seed in (3, 4):
            torch.manual_seed(seed)
            drawn = graphs.run("noise", lambda x: (x + torch.randn_like(x),), optimizer, x)[0]
            torch.manual_seed(seed)
            assert torch.equal(drawn, torch.randn_like(x))

    @pytest.mark.parametrize(
        "config", [TINY, JOINING, JOINING.replace(batch_per_pass=1)], ids=["usual", "joining", "joining, single images"]
    )
    @pytest.mark.parametrize("cuda_graphs", [True, False])
    def test_a_step_does_not_wait_for_the_card(self, cuda_graphs: bool, config: TrainingConfig) -> None:
        state = _on_card(config.replace(cuda_graphs=cuda_graphs, d_reg_interval=1))
        _trained(state, steps=1)
        reals = torch.rand(TINY.batch, 3, 32, 32, device="cuda")
        with _nothing_waits():
            training_step(state, reals)
