"""Messages about files of strangers."""

from __future__ import annotations

import pytest

from sc_layers.checkpoints.errors import CheckpointError, UntrustedCheckpointError


@pytest.mark.parametrize("kind", [CheckpointError, UntrustedCheckpointError])
def test_a_message_cannot_steer_a_terminal(kind: type[CheckpointError]) -> None:
    assert str(kind("tensor \x1b[2J\r\n\x07 of ümlaut")) == "tensor ?[2J??? of ümlaut"
