"""Finding a CUDA toolkit and the cards to compile for, with made-up compilers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sc_layers.ops import building, cuda_toolkit
from sc_layers.ops.cuda_toolkit import Toolkit, ToolkitError

VARIABLES = ("CUDA_HOME", "CUDA_PATH", "TORCH_CUDA_ARCH_LIST")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(cuda_toolkit, "DEFAULT_TOOLKIT", tmp_path / "none")


def make_nvcc(folder: Path, root: Path, version: str = "13.0", codes: str = "sm_75 sm_80 sm_90 sm_120") -> Path:
    """A program that answers like nvcc of a toolkit in `root`."""
    folder.mkdir(parents=True, exist_ok=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(
        "#!/bin/sh\n"
        'case "$1" in\n'
        f'--version) echo "Cuda compilation tools, release {version}, V{version}.1";;\n'
        f'--dryrun) echo "#\\$ TOP={root}/bin/.." >&2;;\n'
        f'--list-gpu-code) for code in {codes}; do echo "$code"; done;;\n'
        "esac\n"
    )
    nvcc.chmod(0o755)
    return nvcc


def toolkit_of(*architectures: str) -> Toolkit:
    return Toolkit(Path("nvcc"), Path("/toolkit"), (13, 0), frozenset(architectures))


def test_nvcc_that_is_a_wrapper_leads_to_the_toolkit_behind_it(monkeypatch, tmp_path) -> None:
    make_nvcc(tmp_path / "bin", tmp_path / "elsewhere")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "elsewhere" / "bin").mkdir(parents=True)
    toolkit = cuda_toolkit.find_toolkit("13.0")
    assert toolkit.root == (tmp_path / "elsewhere").resolve()
    assert toolkit.nvcc == tmp_path / "bin" / "nvcc"
    assert toolkit.architectures == {"75", "80", "90", "120"}


def test_cuda_home_goes_before_the_path(monkeypatch, tmp_path) -> None:
    make_nvcc(tmp_path / "path", tmp_path)
    make_nvcc(tmp_path / "home" / "bin", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "path"), prepend=":")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    assert cuda_toolkit.find_nvcc() == tmp_path / "home" / "bin" / "nvcc"


def test_cuda_home_without_compiler_is_said(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(ToolkitError, match=r"CUDA_HOME=.* has no bin/nvcc"):
        cuda_toolkit.find_nvcc()


def test_no_compiler_at_all_is_said(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolkitError, match="no CUDA compiler found"):
        cuda_toolkit.find_nvcc()


def test_toolkit_of_another_major_version_is_refused(monkeypatch, tmp_path) -> None:
    make_nvcc(tmp_path / "bin", tmp_path, version="12.8")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(ToolkitError, match=r"version 12\.8, PyTorch was built with CUDA 13\.0"):
        cuda_toolkit.find_toolkit("13.0")


def test_torch_without_cuda_is_said() -> None:
    with pytest.raises(ToolkitError, match="built without CUDA"):
        cuda_toolkit.find_toolkit(None)


def test_program_that_is_no_nvcc_is_refused(tmp_path) -> None:
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho hello\n")
    nvcc.chmod(0o755)
    with pytest.raises(ToolkitError, match="does not say its version"):
        cuda_toolkit.inspect(nvcc)


def test_recipe_passes_the_reason_on(monkeypatch, tmp_path) -> None:
    make_nvcc(tmp_path / "bin", tmp_path, version="11.8")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(building.BuildError, match=r"11\.8"):
        building.cuda_recipe()


def test_all_cards_by_default_and_ptx_of_the_newest() -> None:
    flags = cuda_toolkit.architecture_flags(toolkit_of("75", "80", "86", "90", "121"))
    assert flags == (
        "-gencode=arch=compute_80,code=sm_80",
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90,code=sm_90",
        "-gencode=arch=compute_90,code=compute_90",
    )


def test_present_cards_are_enough() -> None:
    flags = cuda_toolkit.architecture_flags(toolkit_of("80", "90", "100"), [(10, 0), (8, 0), (8, 0)])
    assert [flag.split(",code=")[1] for flag in flags] == ["sm_80", "sm_100", "compute_100"]


def test_card_that_the_toolkit_does_not_know_is_said() -> None:
    with pytest.raises(ToolkitError, match=r"cannot compile for this card \(sm_120\)"):
        cuda_toolkit.architecture_flags(toolkit_of("80", "90"), [(12, 0)])


def test_listed_cards_are_respected(monkeypatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "8.6;9.0a 12.0+PTX")
    flags = cuda_toolkit.architecture_flags(toolkit_of("80"), [(8, 0)])
    assert [flag.split(",code=")[1] for flag in flags] == ["sm_86", "sm_90a", "sm_120", "compute_120"]


def test_list_that_cannot_be_read_is_said(monkeypatch) -> None:
    monkeypatch.setenv("TORCH_CUDA_ARCH_LIST", "Hopper")
    with pytest.raises(ToolkitError, match="cannot read 'Hopper'"):
        cuda_toolkit.architecture_flags(toolkit_of("90"))
