"""The safetensors format, against the library of that name and by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sc_layers.checkpoints import safetensors
from sc_layers.checkpoints.errors import CheckpointError
from sc_layers.checkpoints.pickles.limits import Budget

DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
)  # fmt: skip
TENSORS = {str(dtype): (torch.arange(6).reshape(2, 3) % 2).to(dtype) for dtype in DTYPES} | {
    "scalar": torch.tensor(1.5),
    "empty": torch.zeros(0, 3),
    "transposed": torch.arange(6.0).reshape(2, 3).T,
    "ünicode": torch.ones(1),
}


def read(data: bytes) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    return safetensors.load(bytearray(data), Budget(len(data)))


def assert_equal(tensors: dict[str, torch.Tensor]) -> None:
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name


def test_tensors_and_metadata_come_back() -> None:
    tensors, metadata = read(safetensors.dump(TENSORS, {"a": "b"}))
    assert_equal(tensors)
    assert metadata == {"a": "b"}


def test_the_library_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors.dump(TENSORS, {}))
    assert_equal(library.load_file(path))
    library.save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, path, {"a": "b"})
    tensors, metadata = read(path.read_bytes())
    assert_equal(tensors)
    assert metadata == {"a": "b"}


def test_loaded_tensors_can_be_written_to() -> None:
    tensors, _ = read(safetensors.dump({"a": torch.zeros(2)}, {}))
    tensors["a"].add_(1)
    assert tensors["a"].tolist() == [1, 1]


def test_tensors_that_share_memory_are_each_written() -> None:
    row = torch.arange(4.0)
    tensors, _ = read(safetensors.dump({"all": row, "first": row[:2]}, {}))
    assert tensors["all"].tolist() == [0, 1, 2, 3]
    assert tensors["first"].tolist() == [0, 1]


def test_metadata_must_be_text() -> None:
    data = safetensors.dump({}, {"a": "b"}).replace(b'"b"', b" 1 ")
    with pytest.raises(CheckpointError, match="object of strings"):
        read(data)
