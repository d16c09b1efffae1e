"""Hooks by which codes reach the layers."""

from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sc_layers.attach import (
    attach_spatial_constriction,
    codes_of,
    constriction_parameters,
)
from sc_layers.attach.hooks import Argument, StripCodes, split_codes
from tests.attach.samples import K, attached, run, wide_z
from tests.integrations.toys import (
    W_DIM,
    AdaLikeGenerator,
    StyledLayer,
)


def test_a_row_of_any_other_width_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"w must have 20 entries \(16 and 4 codes\), or 16 for codes 0"):
        StripCodes(16, 4, Argument("w", 0))(torch.nn.Identity(), (torch.randn(3, 17),), {})


@pytest.mark.parametrize("part", ["mapping", "synthesis"])
def test_any_other_width_is_an_error_that_names_both(part: str) -> None:
    generator = attached()
    with pytest.raises(ValueError, match=r"must have \d+ entries \(\d+ and 4 codes\), or \d+ for codes 0"):
        generator.mapping(torch.randn(2, 6), None) if part == "mapping" else generator.synthesis(torch.randn(2, 8, 8))


def test_foreign_arithmetic_finds_an_average_of_w_as_wide_as_w() -> None:
    generator = attached()
    generator.mapping.w_avg = torch.randn(W_DIM)
    ws = generator.mapping(wide_z(), None)
    average = generator.mapping.w_avg
    truncated = average + (ws - average) * 0.5
    narrow = generator.mapping(wide_z()[:, :5].contiguous() * 0 + 1, None, truncation_psi=0.5)
    assert truncated.shape == narrow.shape == ws.shape
    assert torch.equal(codes_of(generator, truncated), 0.5 * codes_of(generator, ws))
    assert generator.state_dict()["mapping.w_avg"].shape == (W_DIM,)
    generator.mapping.w_avg += 1
    torch.testing.assert_close(generator.mapping.w_avg[:W_DIM], average[:W_DIM] + 1)


def test_the_average_of_w_is_tracked_in_training_as_before() -> None:
    generator, plain = AdaLikeGenerator().train(), AdaLikeGenerator().train()
    plain.load_state_dict(generator.state_dict())
    attach_spatial_constriction(generator, K, [8, 16])
    z = wide_z()
    generator.mapping(z, None)
    plain.mapping(z[:, :5].contiguous(), None)
    assert torch.equal(generator.state_dict()["mapping.w_avg"], plain.mapping.w_avg)
    generator.eval().mapping(z, None)
    assert torch.equal(generator.state_dict()["mapping.w_avg"], plain.mapping.w_avg)


def test_blocks_can_be_checkpointed_one_by_one() -> None:
    generator = attached().train()
    z = wide_z()
    run(generator, z).square().sum().backward()
    expected = [p.grad.clone() for p in generator.parameters() if p.grad is not None]
    generator.zero_grad()
    for size in (8, 16):
        block = generator.synthesis.get_submodule(f"b{size}")
        block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False)
    run(generator, z).square().sum().backward()
    torch.testing.assert_close([p.grad for p in generator.parameters() if p.grad is not None], expected)


def test_threads_do_not_share_codes() -> None:
    generator = attached()
    zs = [wide_z() for _ in range(8)]
    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        expected = [run(generator, z) for z in zs]
        for _ in range(5):
            assert all(map(torch.equal, pool.map(lambda z: run(generator, z), zs), expected))


def test_keyword_arguments_work() -> None:
    generator = attached()
    z = wide_z()
    ws = generator.mapping(z=z, c=None)
    assert torch.equal(generator.synthesis(ws=ws, noise_mode="const"), run(generator, z))


def test_unpickling_in_a_fresh_process_survives_hooks_registered_there(tmp_path: Any) -> None:
    generator = attached()
    z = wide_z()
    torch.save([z, run(generator, z).detach()], tmp_path / "images.pt")
    (tmp_path / "generator.pkl").write_bytes(pickle.dumps(generator))
    # Hooks are numbered from 0 in a new process: registering some on every module must not displace ours.
    script = (
        "import pickle, sys, torch\n"
        "generator = pickle.load(open(sys.argv[1] + '/generator.pkl', 'rb'))\n"
        "z, elsewhere = torch.load(sys.argv[1] + '/images.pt')\n"
        "images = generator(z, None, noise_mode='const')\n"
        "torch.testing.assert_close(images, elsewhere)\n"
        "hooks = [m.register_forward_hook(lambda *_: None) for _ in range(9) for m in generator.modules()]\n"
        "hooks += [m.register_forward_pre_hook(lambda *_: None) for _ in range(9) for m in generator.modules()]\n"
        "assert torch.equal(generator(z, None, noise_mode='const'), images)\n"
        "[hook.remove() for hook in hooks]\n"
        "assert torch.equal(generator(z, None, noise_mode='const'), images)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_layer_of_a_known_code_base_runs_alone() -> None:
    layer = attached().synthesis.b8.conv1
    x, row = torch.randn(1, 6, 8, 8), torch.randn(1, W_DIM + K)
    expected = layer.constriction(StyledLayer.forward(layer, x, row, "const"), row[:, W_DIM : W_DIM + 2])
    assert torch.equal(layer(x, row, noise_mode="const"), expected)


def _path_length_gradient(generator: AdaLikeGenerator, z: Tensor) -> Tensor:
    ws = generator.mapping(z, None)
    images = generator.synthesis(ws, noise_mode="const")
    (gradient,) = torch.autograd.grad((images * torch.randn_like(images)).sum(), ws, create_graph=True)
    return gradient


@pytest.mark.parametrize(
    ("option", "training", "reached"), [(False, True, False), (True, True, True), (False, False, True)]
)
def test_path_length_leaves_the_codes_out_in_training_unless_told(option: bool, training: bool, reached: bool) -> None:
    generator = attached(codes_in_path_length=option).train(training)
    gradient = _path_length_gradient(generator, wide_z())
    assert (gradient[:, 2, W_DIM:].abs().max() > 0) == reached  # the row of b8's conv1
    assert gradient[..., :W_DIM].abs().max() > 0


def test_path_length_regularisation_reaches_the_constriction_by_double_backward() -> None:
    generator = attached().train()
    gradient = _path_length_gradient(generator, wide_z())
    gradient.square().sum(2).mean(1).sqrt().sum().backward()
    touched = [p.grad for p in constriction_parameters(generator) if p.grad is not None]
    assert touched
    assert all(g.isfinite().all() for g in touched)
    assert max(g.abs().max() for g in touched) > 0


def test_a_single_row_without_codes_lies_in_memory_of_its_own() -> None:
    rows = torch.randn(4, 20)
    ((stripped,), _) = StripCodes(16, 4, Argument("w", 0))(torch.nn.Identity(), (rows[1:2],), {})
    for alone in (stripped, split_codes(rows[1:2], 16, 4, "w")[0]):
        assert torch.equal(alone, rows[1:2, :16])
        assert alone.untyped_storage().nbytes() == 16 * rows.element_size()
