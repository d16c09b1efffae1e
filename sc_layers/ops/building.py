"""Compilation of the native libraries with ninja into a keyed cache, or into a wheel.

One library per backend; each is described by a `Recipe` and lands in `<cache>/<backend>-<key>/`, where the key
covers everything that the binary depends on. The folder appears by one rename, so a killed compile leaves
nothing that could be mistaken for a library.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from . import cuda_toolkit

SOURCES = Path(__file__).parent / "csrc"
PREBUILT = Path(__file__).parent / "prebuilt"
SUFFIX = ".dylib" if sys.platform == "darwin" else ".so"

# Oldest PyTorch whose stable ABI the libraries use. A library works with this one and every later one.
TORCH_TARGET = "0x020a000000000000"
_BASE_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall")
# Torch's headers are system headers: their warnings are not ours.
_BINDING_FLAGS = (*_BASE_FLAGS, f"-DTORCH_TARGET_VERSION={TORCH_TARGET}", "-isystem", "$torch/include")
# Products and sums may contract to one rounding; `errno` and traps of the maths library are not looked at. PyTorch runs
# the kernels' loops on its own threads through a C interface, so nothing there can throw.
_KERNEL_FLAGS = (*_BASE_FLAGS, "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fno-exceptions")
# Where a compiler has only a static C++ library, the copy in ours must not take the place of PyTorch's.
_HIDE_STATIC = "--exclude-libs=ALL"
_MODE = 0o755  # of folders and libraries in the cache: others may read
_TORCH, _HASH = "torch", "sha256"  # what a stamp in the cache says besides `_stamp`
_X86_VARIANTS = {
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"),
}


class BuildError(RuntimeError):
    """A native library could not be made; the message says why and what helps."""


@dataclass(frozen=True)
class Step:
    """One compiler run: `command` is a ninja command with $in, $out and $torch (the installed torch package)."""

    output: str
    source: str  # relative to SOURCES
    command: str


@dataclass(frozen=True)
class Recipe:
    """How one library is made.

    Args:
        backend: "cpu" or "cuda".
        steps: compiler runs, one per object file.
        link: ninja command that makes the library $out of the objects $in.
        tools: version texts of all compilers involved; part of the cache key.
    """

    backend: str
    steps: tuple[Step, ...]
    link: str
    tools: tuple[str, ...] = field(default=())


def compiler() -> list[str]:
    """Command of the C++ compiler: $CXX, else the first of c++, g++, clang++ on the PATH.

    Raises:
        BuildError: there is none, or it is neither GCC nor Clang.
    """
    chosen = os.environ.get("CXX")
    try:
        candidates = [shlex.split(chosen)] if chosen else [["c++"], ["g++"], ["clang++"]]
    except ValueError as error:
        raise BuildError(f"$CXX is no command, {error}: {chosen!r}") from error
    for command in candidates:
        if command and shutil.which(command[0]):
            return command
    tried = chosen or "c++, g++ and clang++"
    raise BuildError(
        f"no C++ compiler found (looked for {tried}): install GCC 10 or Clang 12 or newer "
        "(Debian and Ubuntu: apt install g++; macOS: xcode-select --install) or name one in $CXX"
    )


def compiler_version(command: list[str]) -> str:
    """First line that the compiler whose command is `command` prints for `--version`."""
    result = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False)
    if result.returncode != 0 or not result.stdout:
        raise BuildError(f"the C++ compiler {shlex.join(command)!r} does not run: {result.stderr.strip()}")
    return result.stdout.splitlines()[0]


def is_x86() -> bool:
    """Whether this machine has an x86-64 processor."""
    return platform.machine().lower() in ("x86_64", "amd64")


def cpu_recipe(extra_flags: tuple[str, ...] = ()) -> Recipe:
    """The library with the CPU kernels: one copy of them per instruction set, chosen at run time.

    Args:
        extra_flags: appended to every compiler run and to the link, such as those of a sanitizer.
    """
    command = compiler()
    tool = " ".join(shlex.quote(part) for part in command)
    extra = " ".join(extra_flags)

    def compile_with(flags: tuple[str, ...]) -> str:
        return f"{tool} {' '.join(flags)} {extra} -c $in -o $out"

    variants = {"baseline": (), **(_X86_VARIANTS if is_x86() else {})}
    steps = [Step("binding_cpu.o", "cpu/binding_cpu.cpp", compile_with(_BINDING_FLAGS))]
    for name, flags in variants.items():
        step_flags = (*_KERNEL_FLAGS, *flags, f"-DSC_LAYERS_ISA={name}")
        steps.append(Step(f"kernels_{name}.o", "cpu/kernels.cpp", compile_with(step_flags)))
    undefined = "-undefined dynamic_lookup" if sys.platform == "darwin" else "-L$torch/lib -ltorch_cpu"
    hide = "" if sys.platform == "darwin" else f"-Wl,{_HIDE_STATIC}"
    link = f"{tool} -shared {extra} {hide} $in {undefined} -o $out"
    return Recipe("cpu", tuple(steps), link, (compiler_version(command),))


def _present_cards() -> list[tuple[int, int]]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())]


def cuda_recipe() -> Recipe:
    """The library with the CUDA kernels, for the cards that `cuda_toolkit.architecture_flags` says."""
    import torch

    command = compiler()
    tool = " ".join(shlex.quote(part) for part in command)
    try:
        toolkit = cuda_toolkit.find_toolkit(torch.version.cuda)
        cards = cuda_toolkit.architecture_flags(toolkit, _present_cards())
    except cuda_toolkit.ToolkitError as error:
        raise BuildError(str(error)) from error
    nvcc = f"{shlex.quote(str(toolkit.nvcc))} -ccbin {shlex.quote(command[0])}"
    flags = (*cuda_toolkit.DEVICE_FLAGS, "-Xcompiler=-fPIC,-fvisibility=hidden", "-Xfatbin=-compress-all", *cards)
    device_flags = " ".join(flags)
    host_flags = " ".join((*_BINDING_FLAGS, "-DUSE_CUDA"))
    kernels = sorted(path.stem for path in (SOURCES / "cuda").glob("*.cu"))
    steps = [Step(f"{unit}.o", f"cuda/{unit}.cu", f"{nvcc} {device_flags} -c $in -o $out") for unit in kernels]
    steps.append(Step("binding_cuda.o", "cuda/binding_cuda.cpp", f"{tool} {host_flags} -c $in -o $out"))
    # nvcc links its own static runtime, so that the library needs no toolkit where it is used.
    link = f"{nvcc} -shared -Xlinker {_HIDE_STATIC} $in -L$torch/lib -ltorch_cuda -ltorch_cpu -o $out"
    version = ".".join(map(str, toolkit.version))
    return Recipe("cuda", tuple(steps), link, (compiler_version(command), f"nvcc {version}"))


RECIPES: dict[str, Callable[[], Recipe]] = {"cpu": cpu_recipe, "cuda": cuda_recipe}


def torch_folder() -> Path:
    """Folder of the installed torch package."""
    import torch

    return Path(torch.__file__).parent


def torch_version() -> str:
    """Version of the installed torch package."""
    import torch

    return torch.__version__


def source_hash(backend: str) -> str:
    """Hash of a backend's native sources; a prebuilt library is used only if made from the same ones."""
    digest = hashlib.sha256()
    for path in sorted(p for p in (*SOURCES.glob("*"), *(SOURCES / backend).rglob("*")) if p.is_file()):
        digest.update(path.relative_to(SOURCES).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_key(recipe: Recipe) -> str:
    """Key in the cache of what `recipe` makes: sources, torch version, compilers, their commands, machine."""
    parts = [
        source_hash(recipe.backend),
        torch_version(),
        platform.machine(),
        sys.platform,
        recipe.link,
        *recipe.tools,
        *(step.command + step.source for step in recipe.steps),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def cache_folder() -> Path:
    """$SC_LAYERS_CACHE, else `sc_layers` in the user's cache folder.

    Raises:
        BuildError: the user has no home, or the folder is in that of a user that there is not.
    """
    chosen = os.environ.get("SC_LAYERS_CACHE")
    folder = Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "sc_layers"
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise BuildError(f"no cache for compiled kernels, {folder} leads nowhere: set $SC_LAYERS_CACHE") from error


def library_name(backend: str) -> str:
    """File name of the library of a backend, "cpu" or "cuda"."""
    return f"sc_layers_{backend}{SUFFIX}"


def cached_library(recipe: Recipe) -> Path:
    """Where the cache keeps the library of `recipe`, whether or not it is there."""
    return cache_folder() / f"{recipe.backend}-{cache_key(recipe)}" / library_name(recipe.backend)


def _writable_by_others(status: os.stat_result) -> bool:
    """Whether somebody else may put files into a folder, or change a file: a group of the user's own is no one else."""
    own_group = status.st_gid == status.st_uid or status.st_gid == 0
    return bool(status.st_mode & stat.S_IWOTH) or (bool(status.st_mode & stat.S_IWGRP) and not own_group)


def why_not_trusted(library: Path) -> str | None:
    """Why a library in the cache must not be loaded, since somebody else may have put it there; None if it may.

    It has to be a regular file, and it and the two folders above it the user's or root's, which others can't write.
    Further up it does not matter: who moves a folder of the user's away can't make another one that is the user's.
    """
    for path in (library, library.parent, library.parent.parent):
        status = path.lstat() if path == library else path.stat()
        if path == library and not stat.S_ISREG(status.st_mode):
            return f"{path} is no regular file"
        if status.st_uid not in (0, os.geteuid()):
            return f"{path} belongs to another user"
        if _writable_by_others(status):
            return f"others can write {path}"
    return None


def is_intact(library: Path) -> bool:
    """Whether a library in the cache is what was compiled: the stamp beside it has its hash."""
    stamp = _read_stamp(library)
    try:
        return stamp.pop(_HASH, None) == hashlib.sha256(library.read_bytes()).hexdigest()
    except OSError:
        return False


def cached_without_compiler(backend: str) -> Path | None:
    """A library of `backend` in the cache, of these sources, this machine and PyTorch, by whatever compiler."""
    expected = {**_stamp(backend), _TORCH: torch_version()}
    for library in sorted(cache_folder().glob(f"{backend}-*/{library_name(backend)}")):
        stamp = _read_stamp(library)
        if {key: value for key, value in stamp.items() if key != _HASH} == expected and is_intact(library):
            return library
    return None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that dies with the process; wait for another process that holds it."""
    try:
        import fcntl
    except ImportError as error:
        raise BuildError("compiling the native kernels is supported on Linux and macOS only") from error
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _ninja_file(recipe: Recipe, sources: Path) -> str:
    def escape(text: str) -> str:
        return text.replace("$", "$$").replace(":", "$:").replace(" ", "$ ")

    lines = ["ninja_required_version = 1.3", f"torch = {shlex.quote(str(torch_folder())).replace('$', '$$')}"]
    for i, step in enumerate(recipe.steps):
        lines += [
            f"rule step{i}",
            f"  command = {step.command}",
            f"build {escape(step.output)}: step{i} {escape(str(sources / step.source))}",
        ]
    objects = " ".join(escape(step.output) for step in recipe.steps)
    lines += ["rule link", f"  command = {recipe.link}", f"build {library_name(recipe.backend)}: link {objects}", ""]
    return "\n".join(lines)


def compile_into(recipe: Recipe, folder: Path) -> Path:
    """Compile the library of `recipe` into `folder` (made if needed) and return its path.

    Raises:
        BuildError: the compiler failed, with its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(_ninja_file(recipe, SOURCES))
    # Not the `ninja` command: it is not on the PATH in an environment that is not activated.
    command = [sys.executable, "-m", "ninja", "-C", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        output = (result.stdout + result.stderr).strip()
        hint = ": pip install ninja" if "No module named ninja" in output else ""
        raise BuildError(f"compiling the {recipe.backend} kernels failed{hint}\n{output}")
    return folder / library_name(recipe.backend)


def build(recipe: Recipe) -> Path:
    """The library of `recipe` from the cache, compiled first if it is not there.

    Several processes may call this at once: one compiles, the others wait for it.

    Raises:
        BuildError: no compiler, a failed compile, or a cache folder that cannot be written.
    """
    library = cached_library(recipe)
    if is_intact(library):
        return library
    try:
        if not cache_folder().exists():
            cache_folder().mkdir(parents=True, mode=_MODE)
        with _locked(cache_folder() / f"{library.parent.name}.lock"):
            if not is_intact(library):
                _build_under_lock(recipe, library.parent)
    except OSError as error:
        raise BuildError(
            f"cannot use the cache {cache_folder()} ({error}): name another in $SC_LAYERS_CACHE"
        ) from error
    return library


def _build_under_lock(recipe: Recipe, folder: Path) -> None:
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # what a killed compile left
    print(f"sc-layers: compiling the {recipe.backend} kernels, once for this machine ...", file=sys.stderr, flush=True)
    start = time.monotonic()
    try:
        library = compile_into(recipe, partial)
        made = {_TORCH: torch_version(), _HASH: hashlib.sha256(library.read_bytes()).hexdigest()}
        stamp_file(library).write_text(json.dumps(_stamp(recipe.backend) | made))
        for path in (library, partial):
            path.chmod(_MODE)  # whatever the umask
        shutil.rmtree(folder, ignore_errors=True)  # one that was damaged
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    print(f"sc-layers: compiled in {time.monotonic() - start:.1f} s: {folder}", file=sys.stderr, flush=True)


def cuda_major() -> str:
    """Major version of the CUDA that this PyTorch was built with, "" if none: that of its toolkit and its driver."""
    import torch

    return (torch.version.cuda or "").split(".")[0]


def _stamp(backend: str) -> dict[str, str]:
    stamp = {"source_hash": source_hash(backend), "machine": platform.machine(), "platform": sys.platform}
    return stamp | {"cuda": cuda_major()} if backend == "cuda" else stamp


def stamp_file(library: Path) -> Path:
    """What lies beside `library` and says what it was made from."""
    return library.with_name(f"{library.name}.json")


def _read_stamp(library: Path) -> dict[str, str]:
    """What lies beside a library and says what it was made from; nothing if that is missing or damaged."""
    try:
        stamp = json.loads(stamp_file(library).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def prebuild(folder: Path, recipes: Iterable[Recipe]) -> list[Path]:
    """Put the libraries of `recipes` into `folder`, as a wheel carries them (see `setup.py`); returns their paths.

    Raises:
        BuildError: as `build` does, which makes those that the cache lacks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for recipe in recipes:
        library = build(recipe)
        made.append(Path(shutil.copy2(library, folder / library.name)))
        stamp_file(made[-1]).write_text(json.dumps(_stamp(recipe.backend)))
    return made


def prebuilt_library(backend: str, folder: Path = PREBUILT) -> Path | None:
    """The library of `backend` in `folder`, if made from these sources for this kind of machine and CUDA, or None."""
    library = folder / library_name(backend)
    return library if library.is_file() and _read_stamp(library) == _stamp(backend) else None
