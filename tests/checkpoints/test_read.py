"""Recognising and loading files of any format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sc_layers
from sc_layers import CheckpointError, UntrustedCheckpointError, load_network, save_network
from sc_layers.layers import SpatialConstriction
from tests.checkpoints.samples import assert_same

EXTENSIONS = (".safetensors", ".pt", ".pkl")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_format_is_recognised_by_content(extension: str, networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / f"net{extension}", **networks)
    (tmp_path / f"net{extension}").rename(tmp_path / "net.data")
    assert_same(load_network(str(tmp_path / "net.data"))["D"], networks["D"])
    with (tmp_path / "net.data").open("rb") as file:
        assert_same(load_network(file)["D"], networks["D"])


def test_the_implementation_of_constriction_can_be_chosen(networks: dict[str, Any], tmp_path: Path) -> None:
    save_network(tmp_path / "net.pt", G=networks["G"])
    generator = load_network(tmp_path / "net.pt", impl="reference")["G"]
    layers = [module for module in generator.modules() if isinstance(module, SpatialConstriction)]
    assert [layer.impl for layer in layers] == ["reference"]


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_text("hello")
    with (tmp_path / "net.pt").open() as file, pytest.raises(TypeError, match="reading bytes"):
        load_network(file)  # type: ignore[arg-type]


def test_errors_are_value_errors_with_public_names() -> None:
    assert issubclass(UntrustedCheckpointError, CheckpointError)
    assert issubclass(CheckpointError, ValueError)
    assert {"load_network", "save_network", "UntrustedCheckpointError"} <= set(sc_layers.__all__)


def test_a_missing_file_or_a_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such file: .*net\.pt"):
        load_network(tmp_path / "net.pt")
    with pytest.raises(ValueError, match="is a folder"):
        load_network(tmp_path)
