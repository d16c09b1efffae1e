"""Codes that ride in z and w: reading, replacing, adding and taking them off."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .attachment import attachment_of, is_attached
from .hooks import join_codes, split_codes


def codes_of(generator: nn.Module, ws: Tensor) -> Tensor:
    """Codes [N, K] that ride in w, each read from the row of w that its layer reads, as style mixing leaves them.

    Args:
        generator: attached.
        ws: [N, L, w_dim + K] or [N, w_dim + K]; of the old width w_dim the codes are zeros.
    """
    record = attachment_of(generator)
    codes = split_codes(ws, record.w_dim, record.num_codes, "w")[1]
    if codes.ndim == 2:
        return codes
    parts = zip(record.rows, record.groups(), strict=True)
    return torch.cat([codes[:, row, start:stop] for row, (start, stop) in parts], dim=1)


def with_codes(generator: nn.Module, ws: Tensor, codes: Tensor) -> Tensor:
    """w with other codes, the same in all rows.

    Args:
        generator: attached.
        ws: [N, L, w_dim] or [N, w_dim], with or without K entries of codes.
        codes: [N, K].

    Returns:
        [N, L, w_dim + K] or [N, w_dim + K].

    Raises:
        ValueError: codes of another shape.
    """
    record = attachment_of(generator)
    if codes.ndim != 2 or codes.shape[1] != record.num_codes:
        raise ValueError(f"codes must be [N, {record.num_codes}], got {tuple(codes.shape)}")
    return join_codes(split_codes(ws, record.w_dim, record.num_codes, "w")[0], codes)


def widen(generator: nn.Module, latent: Tensor, random: bool = False) -> Tensor:
    """z or w [..., width] with entries for the codes appended, if the generator is attached and they are missing.

    Args:
        generator: any.
        latent: [..., width] as before the codes, or already wide.
        random: draw the codes from N(0, 1) in place of zeros.
    """
    if not is_attached(generator):
        return latent
    record = attachment_of(generator)
    if latent.shape[-1] not in (record.z_dim, record.w_dim):
        return latent
    shape = (*latent.shape[:-1], record.num_codes)
    codes = torch.randn(shape, dtype=latent.dtype, device=latent.device) if random else latent.new_zeros(shape)
    return torch.cat([latent, codes], dim=-1)
