from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sc_layers.attach import constriction_parameters
from sc_layers.integrations import rosinality as sc_training
from tests.integrations.toys import W_DIM, RosinalityLikeGenerator, rosinality_images

K = 4
SIZE = 16


def arguments(**more: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    sc_training.add_arguments(parser)
    args = parser.parse_args(["--sc-codes=4", "--sc-res=8,16", "--ps-weight=0.5"])
    vars(args).update({"ckpt": None, "size": SIZE, "latent": W_DIM, "distributed": False} | more)
    return args


class Script:
    """The networks and optimiser of rosinality's training script, and its generator step."""

    def __init__(self, **options: Any) -> None:
        self.generator, self.g_ema = RosinalityLikeGenerator(), RosinalityLikeGenerator()
        self.g_ema.load_state_dict(self.generator.state_dict())
        self.g_optim = torch.optim.Adam(self.generator.parameters(), lr=0.01, betas=(0.0, 0.99))
        self.args = arguments(**options)
        self.sc = sc_training.setup(self.args, self.generator, self.g_ema, self.g_optim, "cpu")

    def step(self, batch: int = 4) -> None:
        noise = [torch.randn(batch, self.args.latent), torch.randn(batch, self.args.latent)]
        self.sc.prepare(noise)
        made, _ = self.generator(noise)
        made, self.loss = self.sc.add_pair_loss(self.generator, noise, made)
        self.generator.zero_grad()
        made.mean().backward()
        self.g_optim.step()

    def checkpoint(self) -> dict[str, Any]:
        networks = {"g": self.generator.state_dict(), "g_ema": self.g_ema.state_dict()}
        return copy.deepcopy({**networks, "g_optim": self.g_optim.state_dict(), **self.sc.state(self.g_ema, 1)})

    def load(self, checkpoint: dict[str, Any]) -> None:
        self.sc.prepare_checkpoint(checkpoint, self.generator, self.g_optim)
        self.generator.load_state_dict(checkpoint["g"])
        self.g_ema.load_state_dict(checkpoint["g_ema"])
        self.g_optim.load_state_dict(checkpoint["g_optim"])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script runs in its own folder, which has one for samples."""
    (tmp_path / "sample").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def plain_checkpoint(tmp_path: Path) -> str:
    """A checkpoint of the unpatched program, as far as it is looked at before the networks are loaded."""
    torch.save({"g": {}, "g_ema": {}}, tmp_path / "plain.pt")
    return str(tmp_path / "plain.pt")


def test_without_flags_nothing_happens() -> None:
    generator = RosinalityLikeGenerator()
    args = arguments(sc_codes=None, sc_res=None, ps_weight=None)
    assert sc_training.setup(args, generator, generator, None, "cpu") is None
    assert args.latent == W_DIM


def test_contradicting_flags_end_the_script_with_one_line() -> None:
    with pytest.raises(SystemExit, match=r"train.py: error: --sc-freeze-g freezes an untrained generator"):
        Script(sc_freeze_g=True)


def test_setup_attaches_both_generators_alike_and_widens_the_latents() -> None:
    script = Script()
    assert script.args.latent == W_DIM + K
    pairs = zip(constriction_parameters(script.generator), constriction_parameters(script.g_ema), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert len(script.g_optim.param_groups) == 3


def test_a_step_trains_constriction_and_recogniser_and_steps_the_latter_once() -> None:
    script = Script()
    parts = [*constriction_parameters(script.generator), *script.sc.recognizer.parameters()]
    before = [p.detach().clone() for p in parts]
    script.step()
    assert script.loss > 0
    assert all(not torch.equal(a, b) for a, b in zip(before, parts, strict=True) if b.numel() > K)
    after = [p.detach().clone() for p in script.sc.recognizer.parameters()]
    script.g_optim.step()  # the script's path-length step
    assert all(torch.equal(a, b) for a, b in zip(after, script.sc.recognizer.parameters(), strict=True))


def test_both_images_of_a_pair_share_mixing_and_noise() -> None:
    script = Script()
    features: list[Tensor] = []
    script.generator.conv1.register_forward_hook(lambda module, args, output: features.append(output))
    script.step()
    assert torch.equal(*features)  # conv1 lies before the first constriction: equal w and equal noise


def test_a_patched_checkpoint_resumes_with_recogniser_and_optimiser(plain_checkpoint: str) -> None:
    script = Script()
    script.step()
    other = Script(ckpt=plain_checkpoint)
    other.load(script.checkpoint())
    for a, b in zip(other.generator.parameters(), script.generator.parameters(), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(other.sc.recognizer.parameters(), script.sc.recognizer.parameters(), strict=True):
        assert torch.equal(a, b)
    assert len(other.g_optim.state) == len(script.g_optim.state)
    other.step()


def test_an_unpatched_checkpoint_resumes_as_the_identity_and_keeps_its_optimiser_state(
    plain_checkpoint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = RosinalityLikeGenerator()
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    plain([torch.randn(4, W_DIM)])[0].mean().backward()
    optimizer.step()
    checkpoint = copy.deepcopy(
        {"g": plain.state_dict(), "g_ema": plain.state_dict(), "g_optim": optimizer.state_dict()}
    )
    z = torch.randn(2, W_DIM)
    before = rosinality_images(plain, z)
    script = Script(ckpt=plain_checkpoint)
    script.load(checkpoint)
    assert capsys.readouterr().out == "The checkpoint has no recogniser: starting with a fresh one.\n"
    wide = torch.cat([z, torch.randn(2, K)], 1)
    assert torch.equal(rosinality_images(script.generator, wide), before)
    assert torch.equal(rosinality_images(script.g_ema, wide), before)
    moments = [script.g_optim.state[p]["exp_avg_sq"] for p in script.generator.style.parameters()]
    assert all(
        torch.equal(a, optimizer.state[p]["exp_avg_sq"]) for a, p in zip(moments, plain.style.parameters(), strict=True)
    )
    script.step()


def test_freezing_keeps_every_bit_of_the_generator_itself(plain_checkpoint: str) -> None:
    script = Script(ckpt=plain_checkpoint, sc_freeze_g=True)
    added = {id(p) for p in constriction_parameters(script.generator)}
    before = {name: p.detach().clone() for name, p in script.generator.named_parameters()}
    script.step()
    moved = {name for name, p in script.generator.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert moved <= {name for name, p in script.generator.named_parameters() if id(p) in added}


def test_a_checkpoint_of_other_layers_is_an_error() -> None:
    checkpoint = Script(sc_res="4,8").checkpoint()
    with pytest.raises(ValueError, match=r"'layers': \['conv1', 'convs.1'\].*--sc-res"):
        Script().load(checkpoint)


def test_a_constricted_checkpoint_resumes_without_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = Script(ps_eps=1.5)
    script.step()
    path = tmp_path / "000001.pt"
    torch.save(script.checkpoint(), path)
    other = Script(ckpt=str(path), sc_codes=None, sc_res=None, ps_weight=None)
    assert capsys.readouterr().out == (
        "Going on with the spatial constriction of the checkpoint: 4 codes in convs.1, convs.3\n"
    )
    other.load(script.checkpoint())
    assert (other.sc.options.ps_eps, other.sc.options.ps_weight) == (1.5, 0.5)
    for a, b in zip(other.sc.recognizer.parameters(), script.sc.recognizer.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_comes_with_a_sheet_of_the_codes() -> None:
    script = Script()
    script.sc.state(script.g_ema, 1000)
    assert Path("sample/codes001000.png").stat().st_size > 0


def test_a_checkpoint_comes_with_the_errors_of_the_recogniser_and_the_gains() -> None:
    script = Script()
    gains = {f"SC/gain/{code:02d}" for code in range(K)}
    assert script.sc.numbers().keys() == gains
    script.step()
    script.sc.state(script.g_ema, 1000)
    line = json.loads(Path("sample/stats.jsonl").read_text())
    assert line.keys() == {"step"} | gains | {f"SC/error/{code:02d}" for code in range(K)}
    assert line["step"] == 1000
    assert all(line[f"SC/error/{code:02d}"] > 0 for code in range(K))


def test_mixed_styles_get_the_codes_of_the_first() -> None:
    script = Script()
    noise = [torch.randn(4, script.args.latent), torch.randn(4, script.args.latent)]
    script.sc.prepare(noise)
    assert torch.equal(noise[0][:, W_DIM:], noise[1][:, W_DIM:])
    assert not torch.equal(noise[0][:, :W_DIM], noise[1][:, :W_DIM])


def test_resolutions_that_do_not_exist_end_the_script_with_one_line() -> None:
    with pytest.raises(SystemExit, match=r"train.py: error: no resolution 64 can be constricted here; there are 4, 8"):
        Script(sc_res="8,64")


def test_weight_zero_trains_without_recogniser() -> None:
    script = Script(ps_weight=0.0)
    script.step()
    assert script.loss == 0
    assert list(script.sc.state(script.g_ema, 1)) == ["sc", "sc_options"]
    assert len(script.g_optim.param_groups) == 2


def test_scripts_attach_what_a_checkpoint_has() -> None:
    script = Script()
    generator = RosinalityLikeGenerator().eval()
    checkpoint = script.checkpoint()
    assert sc_training.attach_from_checkpoint(generator, checkpoint) == K
    generator.load_state_dict(checkpoint["g_ema"])
    z = sc_training.with_random_codes(generator, torch.randn(2, W_DIM))
    assert torch.equal(rosinality_images(generator, z), rosinality_images(script.g_ema.eval(), z))
    assert sc_training.attach_from_checkpoint(RosinalityLikeGenerator(), {"g_ema": {}}) == 0
