"""What TensorBoard shows of a training."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from sc_layers.data import open_dataset
from sc_layers.training import train
from sc_layers.training.board import Board
from tests.training.tiny import tiny_state


def test_losses_progress_and_pictures_are_shown_once(tmp_path: Path) -> None:
    board = Board(tmp_path)
    train(tiny_state(), open_dataset("shapes3d", 32), tmp_path, {}, [board.after_snapshot], progress=False)
    board.writer.close()
    reading = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")
    events = reading.EventAccumulator(str(tmp_path)).Reload()
    assert {"loss/G", "loss/D", "loss/codes", "Progress/images_per_second", "Progress/skipped_updates"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("loss/G")] == [16, 32, 48, 64]
    assert events.Tags()["images"] == ["fakes", "masks"]
    assert [event.step for event in events.Images("fakes")] == [32, 64]


def test_weights_and_biases_takes_what_tensorboard_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    Board(tmp_path, "faces")
    wandb.tensorboard.patch.assert_called_once_with(root_logdir=str(tmp_path))
    wandb.init.assert_called_once_with(project="faces", name=tmp_path.name, dir=tmp_path)
