"""What is to be published, tried as a stranger would: built, checked, installed afresh, the examples run.

    python tests/release.py

Takes what `make wheel` left in `dist/`, adds the sdist, and has twine check both. Under the oldest and the newest
PyTorch that are supported, each with a Python of its own in an environment made for this, the wheel is installed with
all extras, every short example passes strict type checks against it and runs in an empty folder; then the sdist takes
the wheel's place for the first one.
Reports lie in `build/release/`. Exits with 1 if anything failed.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import reports, versions  # noqa: E402

DIST = ROOT / "dist"
FOLDER = ROOT / "build" / "release"
# Arguments with which each example takes seconds; 05 and 06 look at the run that 04 leaves.
RUN = "out/00000-shapes3d32"
EXAMPLES = {
    "01_layer.py": ["--steps", "100"],
    "02_ps_loss_in_your_loop.py": [],
    "03_attach_to_stylegan2.py": [],
    "04_train_ps_sc.py": ["--kimg", "0.5"],
    "05_model_selection.py": [RUN, "--votes", "20", "--traversals", "4"],
    "06_edit.py": [RUN],
}


def check_types(version: str, binary: Path) -> None:
    """Let mypy and pyright, those of this environment, look at the examples with the packages that `binary` sees.

    Raises:
        Failed: one of them complains.
    """
    examples = ROOT / "examples"  # where the package is not beside them
    mypy = [sys.executable, "-m", "mypy", "--strict", "--untyped-calls-exclude", "torch", "--follow-imports", "silent"]
    cache = ["--python-executable", binary, "--cache-dir", FOLDER / "mypy"]
    versions.report([*mypy, *cache, *EXAMPLES], f"{version}-mypy", examples)
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", binary]
    versions.report([*pyright, *EXAMPLES], f"{version}-pyright", examples)


def try_version(version: str, wheel: Path, sdist: Path) -> tuple[str, ...]:
    """A line of the table: the environment, what ran, seconds."""
    start = time.monotonic()
    python = versions.ENVIRONMENTS[version]
    environment, empty = FOLDER / f"venv-{version}", FOLDER / f"run-{version}"
    empty.mkdir()
    try:
        versions.report([versions.interpreter(python), "-m", "venv", environment], f"{version}-venv", FOLDER)
        binary = environment / "bin" / "python"
        versions.install(binary, f"{version}-install", f"torch=={version}.*", f"{wheel}[all]")
        versions.report([binary, "-m", "sc_layers", "doctor"], f"{version}-doctor", empty)
        check_types(version, binary)
        for name, options in EXAMPLES.items():
            command = [binary, ROOT / "examples" / name, *options]
            versions.report(command, f"{version}-{name}", empty, OMP_NUM_THREADS="2")
        versions.install(binary, f"{version}-sdist", "--no-deps", "--force-reinstall", sdist)
        versions.report([binary, ROOT / "examples" / "01_layer.py"], f"{version}-sdist-01_layer.py", empty)
        outcome = f"{len(EXAMPLES)} examples ran"
    except versions.Failed as failure:
        outcome = str(failure)
    shutil.rmtree(environment, ignore_errors=True)
    return f"torch {version}, Python {python}", outcome, f"{time.monotonic() - start:.0f}"


def main() -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    versions.FOLDER = FOLDER
    (wheel,) = DIST.glob("*.whl")
    versions.report([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", DIST], "sdist", ROOT)
    (sdist,) = DIST.glob("*.tar.gz")
    versions.report([sys.executable, "-m", "twine", "check", "--strict", wheel, sdist], "twine", ROOT)
    supported = list(versions.ENVIRONMENTS)
    rows = [try_version(version, wheel, sdist) for version in (supported[0], supported[-1])]
    reports.print_table([("", "outcome", "seconds"), *rows])
    sys.exit(0 if all("examples ran" in outcome for _, outcome, _ in rows) else 1)


if __name__ == "__main__":
    main()
