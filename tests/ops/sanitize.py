"""The twin tests under AddressSanitizer and UndefinedBehaviorSanitizer.

    python tests/ops/sanitize.py [pytest arguments]

Compiles the CPU kernels with both, and runs the tests with their run-time libraries loaded first. Any finding ends the
process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

# No `vptr` check: it needs the run-time type information of PyTorch's own classes.
FLAGS = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize=vptr", "-fno-sanitize-recover=all")
TESTS = ["tests/ops/test_reference.py", "-m", "not slow"]


def runtime_library(compiler: list[str], name: str) -> str:
    command = [*compiler, f"-print-file-name={name}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    from sc_layers.ops import building

    compiler = building.compiler()
    libraries = [runtime_library(compiler, name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    with tempfile.TemporaryDirectory() as folder:
        building.prebuild(Path(folder), [building.cpu_recipe(FLAGS)])
        environment = {
            **os.environ,
            "LD_PRELOAD": " ".join(libraries),
            # Python and PyTorch keep memory to the end on purpose.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "SC_LAYERS_PREBUILT": folder,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, *sys.argv[1:]]
        sys.exit(subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
