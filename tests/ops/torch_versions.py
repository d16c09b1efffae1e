"""One CPU library for every PyTorch: compile it under this one, run the operator's tests under another.

    python tests/ops/torch_versions.py OTHER_PYTHON [pytest arguments]

OTHER_PYTHON is the interpreter of an environment with another version of PyTorch, numpy, pytest, hypothesis and click.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

TESTS = ["tests/ops/test_twin.py", "tests/ops/test_schema.py"]


def torch_version_of(python: str) -> str:
    command = [python, "-c", "import torch; print(torch.__version__)"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def run_tests_under(python: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the operator's tests under `python` with a library that was compiled under this interpreter."""
    from sc_layers.ops import building

    with tempfile.TemporaryDirectory() as folder:
        building.prebuild(Path(folder), [building.cpu_recipe()])
        environment = {**os.environ, "SC_LAYERS_PREBUILT": folder, "CXX": "no-compiler-in-the-other-environment"}
        command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *arguments]
        return subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, check=False)


def main() -> None:
    python, *arguments = sys.argv[1:]
    print(f"compiled under torch {torch_version_of(sys.executable)}, tested under {torch_version_of(python)}")
    result = run_tests_under(python, arguments)
    print(result.stdout, result.stderr, sep="\n")
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
