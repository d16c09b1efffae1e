"""Files of `torch.save` in both of its formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from sc_layers.checkpoints.errors import CheckpointError, UntrustedCheckpointError
from sc_layers.checkpoints.pickles.torch_files import read_torch_file


def content() -> dict[str, Any]:
    base = torch.arange(12.0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(4, 2)).sum().backward()
    optimizer.step()
    return {
        "whole": base,
        "part": base[3:9].view(2, 3).T,
        "half": torch.ones(2, dtype=torch.bfloat16),
        "module": module.state_dict(),
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "numbers": [1, 2.5, None, True, "text", (1, 2)],
    }


def assert_same(ours: Any, theirs: Any) -> None:
    assert isinstance(theirs, type(ours)), f"got {type(ours)}, expected {type(theirs)}"
    if isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)
    elif isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_same(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    else:
        assert ours == theirs


@pytest.mark.parametrize("zipped", [True, False])
def test_what_was_saved_is_read_as_torch_reads_it(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "file.pt"
    torch.save(content(), path, _use_new_zipfile_serialization=zipped)
    assert_same(read_torch_file(path), torch.load(path, weights_only=True))


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content(), tmp_path / "file.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert_same(read_torch_file(tmp_path / "file.pt"), torch.load(tmp_path / "file.pt", weights_only=True))


def test_tensors_of_one_storage_go_on_sharing_it(tmp_path: Path) -> None:
    torch.save(content(), tmp_path / "file.pt")
    read = read_torch_file(tmp_path / "file.pt")
    read["whole"][4] = -1
    assert read["part"][1, 0] == -1


def test_what_is_no_such_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "absent.pt")
    (tmp_path / "page.pt").write_text("<html>")
    with pytest.raises(CheckpointError, match=r"page\.pt: not a file of torch\.save"):
        read_torch_file(tmp_path / "page.pt")


def test_a_whole_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.BatchNorm1d(3), tmp_path / "module.pt")
    with pytest.raises(UntrustedCheckpointError, match=r"module\.pt: the checkpoint asks for torch\.nn\.modules"):
        read_torch_file(tmp_path / "module.pt")
