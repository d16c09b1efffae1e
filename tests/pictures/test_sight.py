"""What the paper's networks show of their codes while they train."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import PIL.Image
import torch

from sc_layers.pictures.sight import CodeWatch
from tests.training.tiny import TINY, tiny_state


def test_a_snapshot_shows_every_code_and_how_well_it_is_read(tmp_path: Path) -> None:
    state = tiny_state()
    state.images_seen = 32
    before = torch.get_rng_state()
    CodeWatch().after_snapshot(state, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert state.Q is not None
    assert state.Q.training
    (line,) = map(json.loads, (tmp_path / "codes.jsonl").read_text().splitlines())
    assert line.pop("kimg") == 0.032
    assert list(line) == [f"SC/error/{code:02d}" for code in range(3)]
    assert all(0 < error < 100 for error in line.values())
    with PIL.Image.open(tmp_path / "codes000000.032.png") as picture:
        assert picture.size > (8 * 32, 3 * 32)


def test_without_a_recogniser_there_is_the_sheet_alone(tmp_path: Path) -> None:
    CodeWatch().after_snapshot(tiny_state(dataclasses.replace(TINY, model="gan")), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["codes000000.png"]
