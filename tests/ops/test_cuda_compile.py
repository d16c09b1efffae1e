"""What nvcc and ptxas make of the kernels: they compile for every card, do not spill, and move 128 bits at a time."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sc_layers.ops import building, cuda_toolkit
from sc_layers.ops.cuda_toolkit import ARCHITECTURES, DEVICE_FLAGS

UNITS = tuple(sorted(path.stem for path in (building.SOURCES / "cuda").glob("*.cu") if path.stem != "device"))
# Kernels over features, by the unit that holds them. Their last template argument allows 16-byte accesses.
STREAMING = {"stream": "streamI", "sums": "sumsI", "statistics": "_statisticsI"}
WIDE = "Lb1EEEv"
# One word, stored and loaded: ptxas finds no place for it in this instance for sm_90. No other kernel spills anything.
SPILLING, SPILLED = "4sumsIfLb1ELb1E", 8


def _nvcc() -> Path | None:
    try:
        return cuda_toolkit.find_nvcc()
    except cuda_toolkit.ToolkitError:
        return None


NVCC = _nvcc()
pytestmark = pytest.mark.skipif(NVCC is None, reason="no CUDA toolkit here")


@dataclass(frozen=True)
class Kernel:
    """One line of ptxas' report."""

    name: str
    registers: int
    stack: int
    spills: int
    static_shared: int


def parse_report(report: str) -> list[Kernel]:
    kernels = []
    pattern = re.compile(
        r"Compiling entry function '(?P<name>\w+)'.*?(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill "
        r"stores, (?P<loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
        re.DOTALL,
    )
    for match in pattern.finditer(report):
        shared = re.search(r"(\d+) bytes smem", match["rest"])
        kernels.append(
            Kernel(
                match["name"],
                int(match["registers"]),
                int(match["stack"]),
                int(match["stores"]) + int(match["loads"]),
                int(shared[1]) if shared else 0,
            )
        )
    return kernels


def compile_kernels(unit: str, architecture: str, folder: Path) -> list[Kernel]:
    command = [str(NVCC), *DEVICE_FLAGS, f"-arch=sm_{architecture}", "-Xptxas=-v", "-cubin"]
    command += ["-o", str(folder / f"{unit}.cubin"), str(building.SOURCES / "cuda" / f"{unit}.cu")]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return parse_report(result.stderr)


def assert_nothing_spills(kernels: list[Kernel], *, architecture: str = "90") -> None:
    assert kernels
    for kernel in kernels:
        allowed = SPILLED if architecture == "90" and SPILLING in kernel.name else 0
        assert kernel.spills <= allowed, kernel
        assert kernel.static_shared == 0, kernel


def test_kernels_do_not_spill(tmp_path: Path) -> None:
    assert_nothing_spills(compile_kernels("sums", "90", tmp_path))


@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("unit", UNITS)
def test_kernels_do_not_spill_on_any_card(unit: str, architecture: str, tmp_path: Path) -> None:
    if architecture not in cuda_toolkit.inspect(NVCC).architectures:
        pytest.skip(f"this toolkit does not know sm_{architecture}")
    assert_nothing_spills(compile_kernels(unit, architecture, tmp_path), architecture=architecture)


@pytest.mark.parametrize("unit", STREAMING)
def test_features_move_16_bytes_at_a_time(unit: str, tmp_path: Path) -> None:
    target = tmp_path / f"{unit}.ptx"
    source = building.SOURCES / "cuda" / f"{unit}.cu"
    subprocess.run([str(NVCC), *DEVICE_FLAGS, "-arch=sm_80", "-ptx", "-o", str(target), str(source)], check=True)
    kernels = re.split(r"\.entry ", target.read_text())[1:]
    wide = [kernel for kernel in kernels if STREAMING[unit] in kernel.split("(")[0] and WIDE in kernel.split("(")[0]]
    assert wide
    for kernel in wide:
        name = kernel.split("(")[0]
        assert re.search(r"ld\.global(\.nc)?\.v[24]\.u32", kernel), f"{name} has no vector load"
        assert not re.search(r"ld\.global(\.nc)?\.u16", kernel), f"{name} loads features one by one"
        assert not re.search(r"st\.global\.[bu]16", kernel), f"{name} stores features one by one"


def test_report_of_a_spilling_kernel_is_refused() -> None:
    report = (
        "ptxas info    : Compiling entry function '_Zconstrict' for 'sm_90'\n"
        "ptxas info    : Function properties for _Zconstrict\n"
        "    8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads\n"
        "ptxas info    : Used 64 registers, used 1 barriers, 16 bytes smem\n"
    )
    kernels = parse_report(report)
    assert kernels == [Kernel("_Zconstrict", 64, 8, 16, 16)]
    with pytest.raises(AssertionError):
        assert_nothing_spills(kernels)
