"""Which CUDA compiler to use, and which cards to compile for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DEFAULT_TOOLKIT = Path("/usr/local/cuda")
# One for every generation from Ampere on, the first with matrix products of bfloat16; cards between them run the code
# of the next lower one.
ARCHITECTURES = ("80", "86", "89", "90", "100", "120")
# The level keeps ptxas from hoisting so much out of loops that the kernels spill.
DEVICE_FLAGS = ("-std=c++17", "-O3", "-Xptxas=--register-usage-level=2")


class ToolkitError(RuntimeError):
    """The CUDA kernels cannot be compiled here; the message says why and what helps."""


@dataclass(frozen=True)
class Toolkit:
    """A CUDA toolkit.

    Args:
        nvcc: the compiler, as it is to be called.
        root: the folder that the toolkit lies in; not always above `nvcc`, which may be a script that calls another.
        version: major and minor.
        architectures: what it can compile for, such as "90".
    """

    nvcc: Path
    root: Path
    version: tuple[int, int]
    architectures: frozenset[str]


def _output(*command: str) -> str:
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise ToolkitError(f"{command[0]} does not run: {error}") from error
    if result.returncode != 0:
        raise ToolkitError(f"{' '.join(command)} fails: {(result.stderr or result.stdout).strip()}")
    return result.stdout + result.stderr


def find_nvcc() -> Path:
    """`nvcc` of $CUDA_HOME or $CUDA_PATH if one is set, else from the PATH, else from /usr/local/cuda.

    Raises:
        ToolkitError: there is none.
    """
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        home = os.environ.get(variable)
        if home:
            nvcc = Path(home) / "bin" / "nvcc"
            if nvcc.exists():
                return nvcc
            raise ToolkitError(f"${variable}={home} has no bin/nvcc: name the folder of a CUDA toolkit, or unset it")
    on_path = shutil.which("nvcc")
    if on_path:
        return Path(on_path)
    nvcc = DEFAULT_TOOLKIT / "bin" / "nvcc"
    if nvcc.exists():
        return nvcc
    raise ToolkitError(
        f"no CUDA compiler found (looked for nvcc in $CUDA_HOME, on the PATH and in {DEFAULT_TOOLKIT}): install the "
        "CUDA toolkit of PyTorch's CUDA version or set $CUDA_HOME to it"
    )


def inspect(nvcc: Path) -> Toolkit:
    """Where the toolkit behind `nvcc` lies and what it can do, as it says itself.

    Raises:
        ToolkitError: it does not run, or says something unexpected.
    """
    release = re.search(r"release (\d+)\.(\d+)", _output(str(nvcc), "--version"))
    top = re.search(r"^#\$ TOP=(.+)$", _output(str(nvcc), "--dryrun", "-x", "cu", "-c", os.devnull), re.MULTILINE)
    if release is None or top is None:
        raise ToolkitError(f"{nvcc} does not say its version and place, as nvcc does: name a toolkit in $CUDA_HOME")
    codes = re.findall(r"\bsm_(\d+)\b", _output(str(nvcc), "--list-gpu-code"))
    root = Path(top.group(1).strip().strip('"')).resolve()
    return Toolkit(nvcc, root, (int(release.group(1)), int(release.group(2))), frozenset(codes))


def find_toolkit(torch_cuda: str | None) -> Toolkit:
    """The toolkit to compile with, which must have the major version of the CUDA that PyTorch was built with.

    Args:
        torch_cuda: `torch.version.cuda`.

    Raises:
        ToolkitError: this PyTorch has no CUDA, there is no toolkit, or its version does not fit.
    """
    if torch_cuda is None:
        raise ToolkitError("this PyTorch was built without CUDA: install a CUDA build from pytorch.org")
    toolkit = inspect(find_nvcc())
    if toolkit.version[0] != int(torch_cuda.split(".")[0]):
        major, minor = toolkit.version
        raise ToolkitError(
            f"the CUDA toolkit in {toolkit.root} is version {major}.{minor}, PyTorch was built with CUDA {torch_cuda}: "
            f"set $CUDA_HOME to a toolkit of version {torch_cuda.split('.')[0]}, or install PyTorch for CUDA {major}"
        )
    return toolkit


def _listed(text: str) -> list[str]:
    """Flags for the cards of a list such as "8.0;9.0+PTX", as $TORCH_CUDA_ARCH_LIST has it."""
    flags = []
    for entry in filter(None, re.split(r"[;\s]+", text)):
        match = re.fullmatch(r"(\d+)\.(\d)([af]?)(\+PTX)?", entry)
        if match is None:
            raise ToolkitError(
                f"$TORCH_CUDA_ARCH_LIST={text!r}: cannot read {entry!r}, expected compute capabilities such as "
                "'8.0;8.6;9.0+PTX'"
            )
        number = match.group(1) + match.group(2) + match.group(3)
        flags.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if match.group(4):
            flags.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return flags


def architecture_flags(toolkit: Toolkit, present: Iterable[tuple[int, int]] = ()) -> tuple[str, ...]:
    """nvcc's flags for the cards to compile for.

    Those that $TORCH_CUDA_ARCH_LIST names; else the `present` ones; else all that this toolkit and `ARCHITECTURES`
    know, with PTX of the newest for those to come.

    Args:
        toolkit: the compiler's.
        present: compute capabilities of the cards in this machine.

    Raises:
        ToolkitError: the list cannot be read, or the toolkit is too old for a present card.
    """
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST", "").strip()
    if listed:
        return tuple(dict.fromkeys(_listed(listed)))
    numbers = sorted({f"{major}{minor}" for major, minor in present}, key=int)
    missing = [number for number in numbers if number not in toolkit.architectures]
    if missing:
        raise ToolkitError(
            f"the CUDA toolkit {'.'.join(map(str, toolkit.version))} in {toolkit.root} cannot compile for this card "
            f"(sm_{missing[0]}): name a newer one in $CUDA_HOME"
        )
    numbers = numbers or [number for number in ARCHITECTURES if number in toolkit.architectures]
    flags = [f"-gencode=arch=compute_{number},code=sm_{number}" for number in numbers]
    newest = numbers[-1]
    return (*flags, f"-gencode=arch=compute_{newest},code=compute_{newest}")
