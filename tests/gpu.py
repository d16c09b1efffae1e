"""Everything that needs a CUDA card, in one command of under four minutes, with a table at the end.

    python tests/gpu.py

Needs PyTorch, NumPy, pytest, hypothesis, ninja, nvcc and compute-sanitizer, no network and no installed package. In
turn: both native libraries are compiled; the tests of the card run beside the four tools of compute-sanitizer; the
short benchmark has the card to itself. Each has a time limit. Their output lies in `build/gpu/`, or in the folder
$OUT. Exits with 1 if anything failed, was not there, or had no time.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import reports  # noqa: E402

LOGS = Path(os.environ.get("OUT") or ROOT / "build" / "gpu")
TOTAL = 230  # seconds
TESTS = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
TOOLS = ("memcheck", "racecheck", "initcheck", "synccheck")
COMPILE = """
import sys
from sc_layers.ops import loading
sys.exit(None if loading.load(sys.argv[1]) else loading.failure(sys.argv[1]))
"""
PYTEST = ("-m", "pytest", "-q", "-p", "no:cacheprovider")


@dataclass
class Part:
    """One command: its arguments after `python`, and its seconds at most."""

    name: str
    arguments: Sequence[str | Path]
    limit: float
    outcome: str = "no time left"
    passed: bool = False
    seconds: float = 0

    @property
    def log(self) -> Path:
        return LOGS / f"{self.name.replace(' ', '-')}.log"

    def run(self, deadline: float) -> None:
        start = time.monotonic()
        limit = min(self.limit, deadline - start)
        if limit < 5:
            return
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "SC_LAYERS_CACHE": str(ROOT / "build" / "gpu-cache")}
        failure = reports.run([sys.executable, *self.arguments], self.log, limit, ROOT, environment)
        self.seconds = time.monotonic() - start
        found = reports.counts(self.log.read_text())
        self.outcome = ", ".join(filter(None, [failure, found])) or "done"
        # Tests that were all skipped have shown nothing.
        self.passed = failure is None and ("pytest" not in self.arguments or "passed" in found)


def parts() -> list[list[Part]]:
    """Those that run side by side, group after group."""
    sanitizers = [
        Part(tool, [*PYTEST, "-m", "gpu and slow", "-k", f"sanitizer and {tool}", *TESTS], 100) for tool in TOOLS
    ]
    return [
        [Part(f"compile for {backend}", ["-c", COMPILE, backend], 90) for backend in ("cpu", "cuda")],
        [Part("tests", [*PYTEST, "-m", "gpu and not slow", *TESTS], 100), *sanitizers],
        [Part("benchmark", ["benchmarks/bench_layer.py", "--device", "cuda"], 120)],
    ]


def main() -> None:
    import torch

    LOGS.mkdir(parents=True, exist_ok=True)
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no CUDA device here"
    print(f"{card}, PyTorch {torch.__version__}, Python {sys.version.split()[0]}", flush=True)
    start = time.monotonic()
    groups = parts()
    for group in groups:
        threads = [threading.Thread(target=part.run, args=(start + TOTAL,)) for part in group]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    done = [part for group in groups for part in group]
    for part in done:
        if part.log.exists() and (not part.passed or part.name == "benchmark"):
            print(f"\n{part.log}:", *part.log.read_text().splitlines()[-160:], sep="\n")
    print()
    rows = [(part.name, "passed" if part.passed else "FAILED", part.outcome, f"{part.seconds:.0f}") for part in done]
    reports.print_table([("part", "", "outcome", "seconds"), *rows])
    print(f"{time.monotonic() - start:.0f} s in all")
    sys.exit(0 if all(part.passed for part in done) else 1)


if __name__ == "__main__":
    main()
