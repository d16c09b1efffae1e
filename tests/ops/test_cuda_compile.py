"""What nvcc and ptxas make of the kernels: they compile for every card, do not spill, and move 128 bits at a time."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from sc_layers.ops import building, cuda_toolkit
from sc_layers.ops.cuda_toolkit import ARCHITECTURES, DEVICE_FLAGS

UNITS = ("float32", "float64", "float16", "bfloat16", "gates")
MAIN_KERNELS = {"constrict_forward", "constrict_backward"}


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


def assert_within_limits(unit: str, kernels: list[Kernel]) -> None:
    # As in the launch bounds of the kernels: four blocks of 256 threads fit into a register file at 64 registers.
    limit = 64 if unit not in ("float64", "gates") else 128
    for kernel in kernels:
        assert (kernel.stack, kernel.spills) == (0, 0), kernel
        assert kernel.registers <= limit, kernel
        assert kernel.static_shared == 0, kernel  # it is all dynamic, as planned
    if unit != "gates":
        # Three stages of each main kernel.
        found = [name for name in MAIN_KERNELS for kernel in kernels if name in kernel.name]
        assert sorted(found) == sorted([*MAIN_KERNELS] * 3)


@pytest.mark.parametrize("unit", ["float16", "gates"])
def test_kernels_do_not_spill(unit: str, tmp_path: Path) -> None:
    assert_within_limits(unit, compile_kernels(unit, "90", tmp_path))


@pytest.mark.sweep
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("unit", UNITS)
def test_kernels_do_not_spill_on_any_card(unit: str, architecture: str, tmp_path: Path) -> None:
    if architecture not in cuda_toolkit.inspect(NVCC).architectures:
        pytest.skip(f"this toolkit does not know sm_{architecture}")
    assert_within_limits(unit, compile_kernels(unit, architecture, tmp_path))


def test_main_kernels_move_128_bits_at_a_time(tmp_path: Path) -> None:
    target = tmp_path / "float16.ptx"
    source = building.SOURCES / "cuda" / "float16.cu"
    subprocess.run([str(NVCC), *DEVICE_FLAGS, "-arch=sm_80", "-ptx", "-o", str(target), str(source)], check=True)
    kernels = re.split(r"\.entry ", target.read_text())[1:]
    checked = 0
    for kernel in kernels:
        name = kernel.split("(")[0]
        if not any(main in name for main in MAIN_KERNELS):
            continue
        checked += 1
        assert re.search(r"ld\.global(\.nc)?\.v4\.[bu]32", kernel), f"{name} has no 128-bit load"
        stores = "StageE1E" not in name  # the first of two launches writes statistics only
        assert bool(re.search(r"st\.global\.v4\.[bu]32", kernel)) == stores, name
        assert re.search(r"ld\.shared\.v[24]\.", kernel), f"{name} reads shared memory element by element"
    assert checked == 6


def test_report_of_a_spilling_kernel_is_refused() -> None:
    report = (
        "ptxas info    : Compiling entry function '_Zconstrict' for 'sm_90'\n"
        "ptxas info    : Function properties for _Zconstrict\n"
        "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
        "ptxas info    : Used 64 registers, used 1 barriers, 16 bytes smem\n"
    )
    kernels = parse_report(report)
    assert kernels == [Kernel("_Zconstrict", 64, 8, 8, 16)]
    with pytest.raises(AssertionError):
        assert_within_limits("gates", kernels)
