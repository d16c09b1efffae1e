"""Two ranks on the CPU, synchronised as stylegan2-ada-pytorch does: by wrapped parts and `no_sync`."""

from __future__ import annotations

import copy
import pickle
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.multiprocessing
from torch import Tensor, distributed, nn

from sc_layers.integrations import nvlabs
from tests.integrations.toys import AdaLikeGenerator
from tests.tolerances import SAME_FORMULA

RANKS = 2
BATCH = 2
ROUNDS = 2


def wrap(module: nn.Module) -> nn.Module:
    module.requires_grad_(True)
    wrapped = nn.parallel.DistributedDataParallel(module, broadcast_buffers=False)
    module.requires_grad_(False)
    return wrapped


class AdaLikeLoss:
    """Conventions of stylegan2-ada's loss, phase Gmain."""

    def __init__(self, G_mapping: nn.Module, G_synthesis: nn.Module) -> None:
        self.G_mapping, self.G_synthesis = G_mapping, G_synthesis

    def run_G(self, z: Tensor, c: Any, sync: bool) -> tuple[Tensor, Tensor]:
        with nullcontext() if sync else self.G_mapping.no_sync():
            ws = self.G_mapping(z, c)
        with nullcontext() if sync else self.G_synthesis.no_sync():
            return self.G_synthesis(ws), ws

    def accumulate_gradients(self, phase: str, gen_z: Tensor, gen_c: Any, sync: bool, gain: float) -> None:
        images, _ = self.run_G(gen_z, gen_c, sync)
        images.mean().mul(gain).backward()


def run_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS)
    torch.manual_seed(rank)  # other weights and other data on every rank
    training = nvlabs.Training(
        AdaLikeGenerator(16), torch.device("cpu"), RANKS, rank, sc_codes=2, sc_res=[8], ps_weight=0.5
    )
    parts = wrap(training.G.mapping), wrap(training.G.synthesis)
    training.distribute(wrap=True)
    loss = training.wrap_loss(AdaLikeLoss(*parts), lambda name, value: None)
    module = nvlabs.GeneratorAndRecognizer(training.G, training.Q).requires_grad_(True)
    for number in range(ROUNDS):
        z = torch.randn(BATCH, training.G.z_dim)
        loss.accumulate_gradients(phase="Gmain", gen_z=z, gen_c=None, sync=number == ROUNDS - 1, gain=1.0)
    torch.save({n: (p.detach(), p.grad) for n, p in module.named_parameters()}, f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_gradients_of_generator_and_recogniser_are_the_same_on_all_ranks(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_rank, args=(str(tmp_path),), nprocs=RANKS)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS))
    for name, (value, gradient) in first.items():
        assert torch.equal(value, second[name][0]), name
        assert gradient is not None, name
        torch.testing.assert_close(gradient, second[name][1], **SAME_FORMULA[torch.float32], msg=name)
        assert gradient.isfinite().all()
    assert max(gradient.abs().max() for name, (_, gradient) in first.items() if name.startswith("Q.")) > 0


def run_broadcast(rank: int, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS)
    torch.manual_seed(rank)
    training = nvlabs.Training(AdaLikeGenerator(16), torch.device("cpu"), RANKS, rank, sc_codes=2, sc_res=[8])
    training.distribute(wrap=False)
    assert training.wrapped_Q is training.Q
    torch.save(training.Q.state_dict(), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_without_wrapping_all_ranks_get_the_recogniser_of_rank_0(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_broadcast, args=(str(tmp_path),), nprocs=RANKS)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def step(training: nvlabs.Training) -> nn.Module:
    """One step of Adam on all ranks by the phase that `Training.join` completes; the phase's module."""
    phase = SimpleNamespace(name="Gmain", module=training.G, opt=torch.optim.Adam(training.G.parameters(), lr=0.01))
    parts = wrap(training.G.mapping), wrap(training.G.synthesis)
    training.distribute(wrap=True)
    loss = training.wrap_loss(AdaLikeLoss(*parts), lambda name, value: None)
    training.join([phase])
    phase.module.requires_grad_(True)
    loss.accumulate_gradients(
        phase=phase.name, gen_z=torch.randn(BATCH, training.G.z_dim), gen_c=None, sync=True, gain=1.0
    )
    phase.module.requires_grad_(False)
    phase.opt.step()
    return phase.module


def parameters_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy; buffers, such as the average of w, are each rank's own, as in the code base."""
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def run_recipe(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS)
    torch.manual_seed(rank)
    options = {"sc_codes": 2, "sc_res": [8], "ps_weight": 0.5}
    first = nvlabs.Training(AdaLikeGenerator(16), torch.device("cpu"), RANKS, rank, **options)
    trained = parameters_of(step(first))
    held = first.snapshot(copy.deepcopy(first.G).eval(), folder, 1000)
    if rank == 0:
        Path(folder, "network.pkl").write_bytes(pickle.dumps({"G": first.G, "G_ema": first.G, **held}))
    distributed.barrier()

    data = pickle.loads(Path(folder, "network.pkl").read_bytes())
    second = nvlabs.Training(AdaLikeGenerator(16), torch.device("cpu"), RANKS, rank, **data[nvlabs.SETTINGS])
    second.resume(data)
    second.G.load_state_dict(data["G"].state_dict())
    resumed = parameters_of(nvlabs.GeneratorAndRecognizer(second.G, second.Q))
    torch.save([trained, resumed, parameters_of(step(second))], f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_write_a_snapshot_and_resume_it_in_step(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(run_recipe, args=(str(tmp_path),), nprocs=RANKS)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    trained, resumed, continued = ranks[0]
    for name in trained:
        assert torch.equal(resumed[name], trained[name]), name
        for ours, theirs in zip(*ranks, strict=True):
            assert torch.equal(ours[name], theirs[name]), name
    for part in ("G.", "Q."):
        assert any(not torch.equal(continued[name], resumed[name]) for name in trained if name.startswith(part))
    assert [file.name for file in tmp_path.glob("*.png")] == ["codes000001.png"]
