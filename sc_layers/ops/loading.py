"""Loading of the native kernels, and the choice between them and plain PyTorch.

Nothing here computes: `schema` registers the operators, `building` compiles their kernels, and this module loads them
and says for each call which path runs. Compiling happens when a layer is made (`prepare`), by
`sc-layers doctor --build`, or in the first eager call, never while PyTorch traces a function.
"""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
from pathlib import Path

import torch

from . import building

IMPLEMENTATIONS = ("auto", "fused", "reference")
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")

# The environment's word, read once: every forward asks for it.
FORCED_IMPL = os.environ.get("SC_LAYERS_IMPL", "")

_lock = threading.RLock()
_loaded: dict[str, Path] = {}
_failures: dict[str, str] = {}
_warned: set[str] = set()


def locate(backend: str) -> Path | None:
    """The library of `backend` that would be loaded without compiling anything, or None if there is none yet.

    Looked for in the folder $SC_LAYERS_PREBUILT if that is set, else in the installed package, then in the cache.

    Raises:
        building.BuildError: no compiler and no library that one made before, $SC_LAYERS_PREBUILT lacks the library, or
            others could have put it into the cache.
    """
    folder = os.environ.get("SC_LAYERS_PREBUILT")
    if folder:
        library = building.prebuilt_library(backend, Path(folder))
        if library is None:
            raise building.BuildError(f"$SC_LAYERS_PREBUILT={folder} has no {backend} library made from these sources")
        return library
    return building.prebuilt_library(backend) or _cached(backend)


def _cached(backend: str) -> Path | None:
    """An intact library of the cache; where there is no compiler any more, one that it made before."""
    try:
        library = building.cached_library(building.RECIPES[backend]())
    except building.BuildError:
        found = building.cached_without_compiler(backend)
        if found is None:
            raise
        return _trusted(found)
    return _trusted(library) if building.is_intact(library) else None


def _trusted(library: Path) -> Path:
    reason = building.why_not_trusted(library)
    if reason:
        raise building.BuildError(f"a cached library is not loaded, {reason}: name another cache in $SC_LAYERS_CACHE")
    return library


def load(backend: str) -> bool:
    """Load the kernels of `backend` ("cpu" or "cuda"), compiling them first if need be; True if they are there.

    The reason of a failure is kept: see `failure`. It is not tried again in this process.

    Raises:
        ValueError: $SC_LAYERS_CPU_ISA names an instruction set that this processor lacks or that there is not.
    """
    with _lock:
        if backend in _loaded or backend in _failures:
            return backend in _loaded
        try:
            library = locate(backend) or _trusted(building.build(building.RECIPES[backend]()))
            torch.ops.load_library(str(library))
        except (building.BuildError, OSError) as error:
            _failures[backend] = str(error)
            return False
        if backend == "cpu":
            _use_instruction_set(library, os.environ.get("SC_LAYERS_CPU_ISA", ""))
        _loaded[backend] = library
        return True


def is_loaded(backend: str) -> bool:
    """Whether the kernels of a backend, "cpu" or "cuda", are loaded."""
    return backend in _loaded


def loaded_library(backend: str) -> Path | None:
    """The loaded library of `backend`, or None."""
    return _loaded.get(backend)


def _use_instruction_set(library: Path, name: str) -> None:
    if ctypes.CDLL(str(library)).sc_layers_cpu_use(name.encode()):
        return
    known = f"x86-64: {', '.join(INSTRUCTION_SETS)}; else: baseline"
    raise ValueError(f"SC_LAYERS_CPU_ISA must name an instruction set of this processor ({known}), got {name!r}")


def use_instruction_set(name: str) -> None:
    """Run the loaded CPU kernels with the named instruction set from now on, or with the best one if `name` is empty.

    Raises:
        ValueError: this processor has none of that name.
    """
    _use_instruction_set(_loaded["cpu"], name)


def cpu_instruction_set() -> str | None:
    """Name of the instruction set that the loaded CPU kernels use; None if they are not loaded."""
    if "cpu" not in _loaded:
        return None
    function = ctypes.CDLL(str(_loaded["cpu"])).sc_layers_cpu_isa
    function.restype = ctypes.c_char_p
    name: bytes = function()
    return name.decode()


def backends() -> list[str]:
    """The backends that this installation of PyTorch can use now."""
    return [name for name in building.RECIPES if name == "cpu" or torch.cuda.is_available()]


def failure(backend: str) -> str | None:
    """Why `load(backend)` failed, or None if it did not or was not called."""
    if backend not in building.RECIPES:
        return f"there are no native kernels for {backend} devices"
    return _failures.get(backend)


def forced_impl(impl: str) -> str:
    """`impl`, or what the environment variable SC_LAYERS_IMPL said instead of it when this module was imported.

    Raises:
        ValueError: either is not one of "auto", "fused", "reference".
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if not FORCED_IMPL:
        return impl
    if FORCED_IMPL not in IMPLEMENTATIONS:
        raise ValueError(f"SC_LAYERS_IMPL must be one of {', '.join(IMPLEMENTATIONS)}, got {FORCED_IMPL!r}")
    return FORCED_IMPL


def _available(impl: str, backend: str, *, may_build: bool) -> bool:
    if impl == "reference":
        return False
    if is_loaded(backend) or (may_build and backend in building.RECIPES and load(backend)):
        return True
    if impl == "fused":
        reason = failure(backend) or "its kernels are not compiled yet, and cannot be while PyTorch traces a function"
        raise RuntimeError(f"impl='fused' cannot be had on {backend}: {reason}\nSee: sc-layers doctor")
    return False


def _warn_once(backend: str) -> None:
    reason = failure(backend)
    if reason is None or backend in _warned or backend not in building.RECIPES:
        return
    _warned.add(backend)
    warnings.warn(
        f"sc_layers runs spatial constriction on {backend} in plain PyTorch, several times slower than its fused "
        f"kernels: {reason}\nMore: sc-layers doctor",
        UserWarning,
        stacklevel=3,
    )


def prepare(impl: str = "auto") -> None:
    """Compile and load the kernels that a layer will need, so that no traced forward has to.

    Raises:
        ValueError: an unknown `impl`.
        RuntimeError: `impl` is "fused" and no kernels can be had; the message has the reason.
    """
    impl = forced_impl(impl)
    if impl == "reference":
        return
    usable = backends()
    ready = [load(backend) for backend in usable]
    if impl == "fused" and not any(ready):
        _available(impl, "cpu", may_build=True)
    for backend in usable:
        _warn_once(backend)


def use_fused(impl: str, device_type: str) -> bool:
    """Whether a call with `impl` on a device goes to the kernels; builds them if need be, unless PyTorch is tracing.

    Args:
        impl: "auto", "fused" or "reference".
        device_type: such as "cpu" or "cuda".

    Raises:
        ValueError: an unknown `impl`.
        RuntimeError: `impl` is "fused" and its kernels cannot be had on this device.
    """
    impl = forced_impl(impl)
    if impl == "auto" and torch.onnx.is_in_onnx_export():
        warnings.warn(
            "exporting to ONNX, which does not know the fused operator: layers run the reference", stacklevel=2
        )
        return False
    tracing = torch.compiler.is_compiling()
    fused = _available(impl, device_type, may_build=not tracing)
    if not (fused or tracing or impl == "reference"):
        _warn_once(device_type)
    return fused
