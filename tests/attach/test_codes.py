"""Codes that ride in z and w."""

from __future__ import annotations

import pytest
import torch

from sc_layers.attach import (
    codes_of,
    widen,
    with_codes,
)
from tests.attach.samples import K, attached, run, wide_z
from tests.integrations.toys import (
    W_DIM,
    AdaLikeGenerator,
)


def test_z_and_w_grow_by_the_codes() -> None:
    generator = attached()
    ws = generator.mapping(wide_z(), None)
    assert (generator.z_dim, generator.w_dim, ws.shape[2]) == (5 + K, W_DIM + K, W_DIM + K)


def test_old_widths_stand_for_codes_zero() -> None:
    generator = attached()
    z = wide_z()
    z[:, 5:] = 0
    assert torch.equal(run(generator, z[:, :5].contiguous()), run(generator, z))
    ws = generator.mapping(z, None)
    assert torch.equal(
        generator.synthesis(ws[..., :W_DIM], noise_mode="const"), generator.synthesis(ws, noise_mode="const")
    )


def test_every_layer_reads_the_codes_in_its_own_row_of_w() -> None:
    generator = attached()
    ws = generator.mapping(wide_z(), None)
    image = generator.synthesis(ws, noise_mode="const")
    for row in range(generator.num_ws):
        mixed = ws.clone()
        mixed[:, row, W_DIM:] += 1
        moved = [(k, row) for k, own in enumerate((2, 2, 4, 4)) if own == row]  # conv1 of b8 and of b16
        assert torch.equal(generator.synthesis(mixed, noise_mode="const"), image) == (not moved)
        change = (codes_of(generator, mixed) - ws[:, 0, W_DIM:]).ne(0)
        assert change.any(0).nonzero().flatten().tolist() == [k for k, _ in moved]


def test_style_mixing_mixes_the_codes_of_the_mixed_layers() -> None:
    generator = attached()
    first, second = generator.mapping(wide_z(), None)[:, None]
    mixed = torch.cat([first[:, :3], second[:, 3:]], dim=1)
    assert torch.equal(codes_of(generator, mixed)[:, :2], first[:, 0, W_DIM : W_DIM + 2])
    assert torch.equal(codes_of(generator, mixed)[:, 2:], second[:, 0, W_DIM + 2 :])


def test_codes_are_never_truncated() -> None:
    generator = attached()
    z = wide_z()
    ws = generator.mapping(z, None, truncation_psi=0.3)
    assert torch.equal(codes_of(generator, ws), z[:, 5:])
    assert not torch.allclose(ws[..., :W_DIM], generator.mapping(z, None)[..., :W_DIM])


def test_codes_in_w_can_be_replaced() -> None:
    generator = attached()
    ws = generator.mapping(wide_z(), None)
    other = torch.randn(2, K)
    assert torch.equal(codes_of(generator, with_codes(generator, ws, other)), other)
    with pytest.raises(ValueError, match=r"codes must be \[N, 4\]"):
        with_codes(generator, ws, torch.randn(2, K + 1))


def test_widen_appends_codes_only_where_they_are_missing() -> None:
    generator = attached()
    z = torch.randn(2, 5)
    assert torch.equal(widen(generator, z), torch.cat([z, torch.zeros(2, K)], 1))
    assert widen(generator, z, random=True)[:, 5:].abs().min() > 0
    assert widen(generator, wide_z()).shape == (2, 5 + K)
    assert widen(AdaLikeGenerator(), z) is z
