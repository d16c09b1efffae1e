"""Which module of the user's checkout has the generator's class."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sc_layers.checkpoints.foreign.checkouts import generator_module


@pytest.fixture(autouse=True)
def _fresh_imports(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


def make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("class Generator: pass\n")
    return folder


@pytest.mark.parametrize(
    ("files", "tensor", "module"),
    [
        (("training/networks.py",), "synthesis.b8.conv0.weight", "training.networks"),
        (("training/networks_stylegan3.py",), "synthesis.L0_36_512.weight", "training.networks_stylegan3"),
        (
            ("training/networks_stylegan3.py", "training/networks_stylegan2.py"),
            "synthesis.b8.conv0.weight",
            "training.networks_stylegan2",
        ),
        (("model.py",), "convs.0.conv.weight", "model"),
        (("model.py", "swagan.py"), "to_rgbs.0.iwt.ll", "swagan"),
    ],
)
def test_tensors_tell_the_module(tmp_path: Path, files: tuple[str, ...], tensor: str, module: str) -> None:
    found = generator_module(make(tmp_path, *files), ["mapping.fc0.weight", tensor])
    assert found.__name__ == module
    assert Path(str(found.__file__)).is_relative_to(tmp_path)


def test_what_is_no_checkout_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotADirectoryError, match="absent is none"):
        generator_module(tmp_path / "absent", [])
    with pytest.raises(ValueError, match=r"is no checkout of a known code base\. Known by these files: stylegan3"):
        generator_module(tmp_path, [])
    with pytest.raises(ValueError, match=r"whose generators have no tensors such as layers\.0"):
        generator_module(make(tmp_path, "model.py"), ["layers.0"])


@pytest.mark.parametrize(
    ("file", "argument", "message"),
    [
        ("training/networks_stylegan3.py", "synthesis_kwargs", "this is a stylegan2-ada-pytorch file, .* of stylegan3"),
        ("training/networks.py", "channel_base", "this is a stylegan3 file, .* of stylegan2-ada-pytorch"),
    ],
)
def test_the_checkout_of_another_code_base_is_named(tmp_path: Path, file: str, argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generator_module(make(tmp_path, file), ["synthesis.b8.conv0.weight"], ["z_dim", argument])


def test_code_that_fails_is_named_with_its_error(tmp_path: Path) -> None:
    (make(tmp_path, "model.py") / "model.py").write_text("1 / 0\n")
    with pytest.raises(ImportError, match=r"importing model of .* failed: ZeroDivisionError: division by zero"):
        generator_module(tmp_path, ["convs.0"])


def test_a_module_from_elsewhere_is_not_mistaken_for_it(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, "model.py") for name in ("first", "second"))
    generator_module(first, ["convs.0"])
    with pytest.raises(ImportError, match=r"first/model\.py has that name and is loaded already"):
        generator_module(second, ["convs.0"])
