"""The safetensors format, against the library of that name and by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sc_layers.checkpoints import safetensors
from sc_layers.checkpoints.errors import CheckpointError

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


def assert_equal(tensors: dict[str, torch.Tensor]) -> None:
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor), name


def test_tensors_and_metadata_come_back() -> None:
    tensors, metadata = safetensors.load(safetensors.dump(TENSORS, {"a": "b"}))
    assert_equal(tensors)
    assert metadata == {"a": "b"}


def test_the_library_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors.dump(TENSORS, {}))
    assert_equal(library.load_file(path))
    library.save_file({name: tensor.contiguous() for name, tensor in TENSORS.items()}, path, {"a": "b"})
    tensors, metadata = safetensors.load(path.read_bytes())
    assert_equal(tensors)
    assert metadata == {"a": "b"}


def test_every_tensor_is_aligned_to_its_item_size() -> None:
    data = safetensors.dump({"byte": torch.zeros(3, dtype=torch.uint8), "wide": torch.ones(2, dtype=torch.float64)}, {})
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 8 == 0
    assert data[start : start + 16] == torch.ones(2, dtype=torch.float64).numpy().tobytes()


def test_loaded_tensors_can_be_written_to() -> None:
    tensors, _ = safetensors.load(safetensors.dump({"a": torch.zeros(2)}, {}))
    tensors["a"].add_(1)
    assert tensors["a"].tolist() == [1, 1]


def test_a_dtype_that_the_format_lacks_is_named() -> None:
    with pytest.raises(TypeError, match=r"torch\.complex64, the dtype of 'a'"):
        safetensors.dump({"a": torch.zeros(1, dtype=torch.complex64)}, {})


def test_metadata_must_be_text() -> None:
    data = safetensors.dump({}, {"a": "b"}).replace(b'"b"', b" 1 ")
    with pytest.raises(CheckpointError, match="object of strings"):
        safetensors.load(data)
