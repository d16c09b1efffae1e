"""Least and most time that the CUDA kernels over features should take, computed from their machine code; needs no card.

Two things bound a kernel: the bytes that it must move, at the speed of a copy, and the instructions that its warps must
issue, four a clock on every multiprocessor. It cannot take less than the longer of the two times (floor); where nothing
of one overlaps with the other it takes their sum (ceiling). Instructions are counted in the disassembly of the loop
over features, of both sides of a branch, without what stands between barriers, which runs once in many turns.

    python benchmarks/floors.py [--copy TB/S] [--multiprocessors N] [--clock GHZ] [--architecture 90]
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from sc_layers.ops import building, cuda_toolkit

SHAPE = (64, 256, 128, 128)  # N, C, H, W of the features; K = 5
LANES_A_CLOCK = 4 * 32  # of a multiprocessor: a warp from each of its four schedulers


@dataclass(frozen=True)
class Kernel:
    """A kernel as it is launched for `SHAPE`.

    Args:
        title: what it computes.
        dtype: of the features.
        layout: "NCHW" or "NHWC".
        instance: the part of its mangled name that tells it from others.
        elements: features that a thread finishes in a turn of its loop, or in all where it has none.
        moved: features that must be moved, as multiples of x.
    """

    title: str
    dtype: str
    layout: str
    instance: str
    elements: int
    moved: int

    @property
    def unit(self) -> str:
        """Name of the source file."""
        return "statistics" if "statistics" in self.instance else "sums" if "sums" in self.instance else "stream"


MANGLED = {"float16": "NS_4HalfE", "float32": "f"}
SIZES = {"float16": 2, "float32": 4}


def kernels() -> list[Kernel]:
    """All that the table has, with the sizes that the launches in `csrc/cuda` choose for `SHAPE` and K = 5."""
    found = []
    for dtype, name in MANGLED.items():
        lines, line = (8, 8) if dtype == "float16" else (4, 4)  # eights of features held in registers; in 16 bytes
        owned = 2 if dtype == "float16" else 1  # tiles of a warp
        found += [
            Kernel("statistics", dtype, "NCHW", f"contiguous_statisticsI{name}Li{lines}ELb1ELb1E", 8 * lines, 1),
            Kernel("statistics", dtype, "NHWC", f"channels_last_statisticsI{name}Lb1E", 8 * lines, 1),
            Kernel("stream, y", dtype, "NCHW", f"6streamI{name}Li5ELb0ELb0ELb1E", 8 * line, 2),
            Kernel("stream, y", dtype, "NHWC", f"6streamI{name}Li5ELb1ELb0ELb1E", 4 * 4, 2),
            Kernel("sums", dtype, "NCHW", f"4sumsI{name}Lb0ELb1E", 16 * owned, 2),
            Kernel("sums", dtype, "NHWC", f"4sumsI{name}Lb1ELb1E", 16, 2),
            Kernel("stream, d x", dtype, "NCHW", f"6streamI{name}Li5ELb0ELb1ELb1E", 4 * line, 3),
            Kernel("stream, d x", dtype, "NHWC", f"6streamI{name}Li5ELb1ELb1ELb1E", 4 * 4, 3),
        ]
    return found


def find_cuobjdump() -> Path:
    """The disassembler: on the PATH, beside nvcc, or the one that the package `triton` of PyTorch carries."""
    spec = find_spec("triton")
    places = spec.submodule_search_locations if spec else None
    carried = [Path(place) / "backends/nvidia/bin" for place in places or ()]
    for folder in (None, cuda_toolkit.find_nvcc().parent, *carried):
        found = shutil.which("cuobjdump", path=None if folder is None else str(folder))
        if found:
            return Path(found)
    sys.exit("no cuobjdump: neither on the PATH, nor beside nvcc, nor in the package triton")


def disassembly(unit: str, architecture: str) -> str:
    """SASS of all kernels of a source file."""
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder) / f"{unit}.cubin"
        source = building.SOURCES / "cuda" / f"{unit}.cu"
        nvcc = [cuda_toolkit.find_nvcc(), *cuda_toolkit.DEVICE_FLAGS, f"-arch=sm_{architecture}", "-cubin"]
        subprocess.run([*nvcc, "-o", binary, source], check=True)
        command = [find_cuobjdump(), "-sass", binary]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def instructions_of(sass: str, instance: str) -> list[tuple[int, str]]:
    """Address and text of every instruction of the one kernel whose name has `instance` in it."""
    bodies = [body for body in sass.split("Function : ")[1:] if instance in body.split("\n", 1)[0]]
    if len(bodies) != 1:
        sys.exit(f"{len(bodies)} kernels are named {instance}, expected one")
    return [(int(at, 16), text) for at, text in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", bodies[0], re.M)]


def counted(instructions: Sequence[tuple[int, str]]) -> int:
    """Instructions of the largest loop that loads 8 or 16 bytes at a time, which is the one over features.

    What stands between its barriers is left out. Of a kernel without such a loop: those up to its first exit that
    asks for nothing.
    """
    loops = []
    for at, text in instructions:
        target = re.search(r"BRA (?:!?U?P\d, )?0x([0-9a-f]+)", text)
        if target and int(target[1], 16) < at:
            inside = [(a, t) for a, t in instructions if int(target[1], 16) <= a <= at]
            if any(re.search(r"LDG\.E\.(64|128)", t) for _, t in inside):
                loops.append(inside)
    if not loops:
        texts = [text for _, text in instructions]
        return next(i for i, text in enumerate(texts) if re.match(r"EXIT", text)) + 1
    texts = [text for _, text in max(loops, key=len)]
    barriers = [i for i, text in enumerate(texts) if "BAR.SYNC" in text]
    return len(texts) - (barriers[-1] - barriers[0] + 1 if barriers else 0)


def times(kernel: Kernel, instructions: int, *, copy: float, multiprocessors: int, clock: float) -> tuple[float, float]:
    """Microseconds to move the features that must be moved, and to issue the instructions.

    Args:
        kernel: which one.
        instructions: of a thread, for `kernel.elements` features.
        copy: bytes that a copy moves, read and written, in 1e12 a second.
        multiprocessors: of the card.
        clock: of the card, in GHz.
    """
    n, c, h, w = SHAPE
    features = n * c * h * w
    moving = kernel.moved * features * SIZES[kernel.dtype] / (copy * 1e6)
    issuing = features * instructions / kernel.elements / (multiprocessors * LANES_A_CLOCK * clock * 1e3)
    return moving, issuing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copy", type=float, default=4.2, help="TB/s that a copy moves; 4.2 was measured on an H200")
    parser.add_argument("--multiprocessors", type=int, default=132, help="of the card; an H100 or H200 (SXM) has 132")
    parser.add_argument("--clock", type=float, default=1.98, help="GHz; an H100 or H200 (SXM) has 1.98 at most")
    parser.add_argument("--architecture", default="90", help="what to compile for, such as 90")
    args = parser.parse_args()
    card = {"copy": args.copy, "multiprocessors": args.multiprocessors, "clock": args.clock}
    print(f"computed for sm_{args.architecture}, x of {' x '.join(map(str, SHAPE))}, K = 5; microseconds\n")
    print("| kernel, features moved | dtype, layout | instructions a feature | moving | issuing | floor | ceiling |")
    print("|---|---|---|---|---|---|---|")
    listed = kernels()
    sass = {unit: disassembly(unit, args.architecture) for unit in sorted({kernel.unit for kernel in listed})}
    for kernel in listed:
        count = counted(instructions_of(sass[kernel.unit], kernel.instance))
        moving, issuing = times(kernel, count, **card)
        print(
            f"| {kernel.title}, {kernel.moved} e | {kernel.dtype} {kernel.layout} | {count / kernel.elements:.1f} "
            f"| {moving:.0f} | {issuing:.0f} | {max(moving, issuing):.0f} | {moving + issuing:.0f} |"
        )


if __name__ == "__main__":
    main()
