"""The package under each PyTorch and Python that it supports, installed from a wheel, with a table at the end.

    python tests/versions.py [--remove] [VERSION ...]

For every PyTorch of `ENVIRONMENTS`, or those named: an environment `.venv-torch-VERSION` with a wheel of this checkout
in it, both native libraries compiled with that version's headers (CUDA's where there is nvcc, whatever its version),
and the tests run away from the sources. Binaries of the first version run under the PyTorch that runs this script too,
and the other way round. `--remove` deletes each environment, of some 6 GB, after its turn. Reports lie in
`build/versions/`, and the end of a failed step's is printed. Exits with 1 if anything failed.
"""

from __future__ import annotations

import argparse
import glob
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import reports  # noqa: E402

FOLDER = ROOT / "build" / "versions"
STAGE = FOLDER / "checkout"  # the tests, without the package beside them
DECIDING = ("pyproject.toml", "constraints.txt")  # what an environment holds
STAGED = ("tests", "examples", "benchmarks", "pyproject.toml")

# PyTorch -> Python, so that each of both has its turn.
ENVIRONMENTS = {"2.10": "3.10", "2.11": "3.11", "2.12": "3.12", "2.13": "3.13", "2.14": "3.12"}
HERE = "here"  # the environment that runs this script, with the newest PyTorch
LEFT_OUT = (
    # The kernels alone, emulated or as nvcc sees them, where there is no PyTorch; and what this script does itself.
    *("ops/test_cuda_emulation", "ops/test_cuda_mutants", "ops/test_cuda_compile", "ops/test_cuda_library"),
    # What needs the sources beside it.
    *("test_packaging", "test_imports", "test_makefile", "test_readme", "test_docstrings", "test_mirror", "test_trust"),
    *("test_docs", "test_constraints"),
    # Long ones that no version changes.
    *("checkpoints/test_fuzz", "checkpoints/test_bombs"),
    *("examples/test_notebooks", "examples/test_vae_study", "examples/test_05_model_selection", "examples/test_demo"),
    *("examples/test_attach", "cli/test_sweep", "sweep/test_running"),
)
SWAPPED = (
    "tests/ops/test_reference.py",
    "tests/ops/test_schema.py",
    "tests/test_layers.py",
    "tests/test_functional.py",
)
MARKED = "not sweep and not gpu"
PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")  # with one thread each, as in the Makefile
TIME_LIMIT = 1800  # seconds for one run of pytest
SHOWN = 40  # lines of a failed step's report that are printed

COMPILE = """
import json, sys, time
from pathlib import Path
import torch
from sc_layers.ops import building, cuda_toolkit
# Whether the sources compile with these headers is the question, not whether the toolkit is that of this PyTorch.
cuda_toolkit.find_toolkit = lambda version: cuda_toolkit.inspect(cuda_toolkit.find_nvcc())
seconds = {}
for backend in sys.argv[2:]:
    start = time.monotonic()
    building.prebuild(Path(sys.argv[1]), [building.RECIPES[backend]()])
    seconds[backend] = f"{time.monotonic() - start:.0f} s"
print(json.dumps({"torch": torch.__version__, "python": sys.version.split()[0], **seconds}))
"""
# Not by `loading`, which rightly takes no CUDA library that was made for another major version of CUDA.
LOAD = """
import sys
import torch
from sc_layers.ops import building, loading
for backend in sys.argv[2:]:
    torch.ops.load_library(f"{sys.argv[1]}/{building.library_name(backend)}")
    assert torch._C._dispatch_has_kernel_for_dispatch_key("sc_layers::constrict", backend.upper())
"""


class Failed(RuntimeError):
    """A step failed; the message is what the table shows, with the report to read."""


@dataclass
class Row:
    """One line of the table: what was tried, seconds of compiling, outcome of the tests."""

    what: str
    compiled: str
    tests: str
    seconds: float
    passed: bool


def report(command: Sequence[str | Path], name: str, cwd: Path = STAGE, **variables: str) -> str:
    """Run a command, write all that it prints to `FOLDER/name.log`, return that.

    Raises:
        Failed: it did not end with 0, or not within the time limit.
    """
    log = FOLDER / f"{name}.log"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | variables
    failure = reports.run(command, log, TIME_LIMIT, cwd, environment)
    if failure:
        print(f"{name}: {failure}", *log.read_text().splitlines()[-SHOWN:], sep="\n", file=sys.stderr, flush=True)
        details = ", ".join(filter(None, [failure, reports.counts(log.read_text())]))
        raise Failed(f"{details}: see {log.relative_to(ROOT)}")
    return log.read_text()


def interpreter(version: str) -> str:
    """A Python of this version: this one, the PATH's, or pyenv's."""
    pyenv = os.environ.get("PYENV_ROOT") or str(Path.home() / ".pyenv")
    candidates = [sys.executable, f"python{version}", *sorted(glob.glob(f"{pyenv}/versions/{version}.*/bin/python"))]
    for candidate in filter(shutil.which, candidates):
        command = [candidate, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        if subprocess.run(command, capture_output=True, text=True).stdout.strip() == version:
            return candidate
    raise Failed(f"no Python {version} here (looked for python{version} on the PATH and in {pyenv})")


def python_of(version: str) -> Path:
    return Path(sys.executable) if version == HERE else ROOT / f".venv-torch-{version}" / "bin" / "python"


def environment(version: str, wheel: Path) -> Path:
    """The interpreter of `.venv-torch-VERSION`, made if need be, with `wheel` freshly installed."""
    python = python_of(version)
    folder = python.parents[1]
    wanted = hashlib.sha256(b"".join((ROOT / name).read_bytes() for name in DECIDING)).hexdigest()
    ready = folder / ".ready"
    if not ready.exists() or ready.read_text() != wanted:
        if not python.exists():
            report([interpreter(ENVIRONMENTS[version]), "-m", "venv", folder], f"{version}-venv")
        install(python, f"{version}-install", f"torch=={version}.*", f"{wheel}[all,test]")
        # As in the Makefile: some tests run against this package, and what it needs besides is for its own training.
        install(python, f"{version}-stylegan2-pytorch", "--no-deps", "stylegan2-pytorch")
        ready.write_text(wanted)
    install(python, f"{version}-wheel", "--no-deps", "--force-reinstall", wheel)
    return python


def install(python: Path, name: str, *what: str | Path) -> None:
    """Install with pip, a second time if the first fails: a download of 3 GB breaks off now and then."""
    command = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", *what]
    try:
        report(command, name, FOLDER)
    except Failed:
        report(command, f"{name}-again", FOLDER)


def prepare() -> Path:
    """Stage the tests and build the wheel; its path."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    for name in STAGED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        STAGE.mkdir(exist_ok=True)
        copy(ROOT / name, STAGE / name)
    report([sys.executable, "-m", "build", "--no-isolation", "--outdir", FOLDER, ROOT], "wheel")
    (wheel,) = FOLDER.glob("*.whl")
    return wheel


def pytest_under(python: Path, name: str, paths: Sequence[str], **variables: str) -> str:
    ignored = [f"--ignore=tests/{name}.py" for name in LEFT_OUT]
    options = ["-q", "-p", "no:cacheprovider", "--continue-on-collection-errors", "--durations=20", "-m", MARKED]
    command = [python, "-m", "pytest", *PARALLEL, *options, *ignored, *paths]
    return reports.counts(report(command, name, OMP_NUM_THREADS="1", PYTHONHASHSEED="0", **variables))


def compile_under(python: Path, name: str, backends: Sequence[str]) -> dict[str, str]:
    """Compile the libraries into `FOLDER/NAME-binaries`; versions, and seconds for each backend."""
    command = [python, "-c", COMPILE, FOLDER / f"{name}-binaries", *backends]
    # One card is enough: the kernels include none of PyTorch's headers.
    variables = {"TORCH_CUDA_ARCH_LIST": "9.0", **cache_of(name)}
    facts: dict[str, str] = json.loads(report(command, f"{name}-compile", **variables).splitlines()[-1])
    return facts


def cache_of(name: str) -> dict[str, str]:
    return {"SC_LAYERS_CACHE": str(FOLDER / f"{name}-cache")}


def try_version(version: str, wheel: Path, backends: Sequence[str]) -> Row:
    """Install, compile and test under one version."""
    start = time.monotonic()
    what, compiled = f"torch {version}, Python {ENVIRONMENTS[version]}", ""
    try:
        python = environment(version, wheel)
        facts = compile_under(python, version, backends)
        what = f"torch {facts['torch']}, Python {facts['python']}"
        compiled = ", ".join(f"{backend} {facts[backend]}" for backend in backends)
        tests, passed = pytest_under(python, f"{version}-tests", ("tests",), **cache_of(version)), True
    except Failed as failure:
        tests, passed = str(failure), False
    return Row(what, compiled, tests, time.monotonic() - start, passed)


def try_swapped(built: str, used: str, backends: Sequence[str]) -> Row:
    """The binaries of one environment in another, where nothing can be compiled into the cache."""
    start = time.monotonic()
    binaries = FOLDER / f"{built}-binaries"
    variables = {"SC_LAYERS_PREBUILT": str(binaries), "SC_LAYERS_CACHE": os.devnull}
    name = f"{built}-under-{used}"
    try:
        report([python_of(used), "-c", LOAD, binaries, *backends], f"{name}-load", **variables)
        tests, passed = pytest_under(python_of(used), name, SWAPPED, **variables), True
    except Failed as failure:
        tests, passed = str(failure), False
    return Row(f"binaries of torch {built} under {used}", "", tests, time.monotonic() - start, passed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=list(ENVIRONMENTS), metavar="VERSION", help="such as 2.10")
    parser.add_argument("--remove", action="store_true", help="delete each environment after its turn")
    arguments = parser.parse_args()
    versions: list[str] = arguments.versions
    unknown = set(versions) - set(ENVIRONMENTS)
    if unknown:
        parser.error(f"unknown version {', '.join(sorted(unknown))}: expected some of {', '.join(ENVIRONMENTS)}")
    backends = ["cpu", *(["cuda"] if shutil.which("nvcc") else [])]
    wheel = prepare()
    rows = []
    for version in versions:
        rows.append(try_version(version, wheel, backends))
        if version == versions[0]:
            compile_under(python_of(HERE), HERE, backends)
            rows += [try_swapped(*pair, backends) for pair in ((version, HERE), (HERE, version))]
        if arguments.remove:
            shutil.rmtree(python_of(version).parents[1], ignore_errors=True)
    cells = [(row.what, row.compiled, row.tests, f"{row.seconds:.0f}") for row in rows]
    reports.print_table([("", "compiled", "tests", "seconds"), *cells])
    sys.exit(0 if all(row.passed for row in rows) else 1)


if __name__ == "__main__":
    main()
