"""Write `constraints.txt`: the version of every package that tests, examples and pages use, for every Python.

    python tests/constraints.py

Each supported Python resolves `.[all,test,docs]` anew, with the newest that it can have. PyTorch and what comes with it
are left out: `make versions` takes several. What Pythons have in common stands once, the rest has a marker.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests import versions  # noqa: E402

FILE = ROOT / "constraints.txt"
EXTRAS = ".[all,wandb,test,docs]"
FREE = re.compile(r"torch|torchvision|triton|nvidia-.*|cuda-.*|sc-layers|setuptools")  # the kernels' own, and ourselves
HEAD = (
    "# The versions that the tests ran with, by `python tests/constraints.py`; PyTorch is free. See CONTRIBUTING.md.\n"
)


def normalised(name: str) -> str:
    """A package's name as the index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve(python: str) -> dict[str, str]:
    """The version of each package that this Python would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [versions.interpreter(python), "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--report", str(report), EXTRAS], cwd=ROOT, check=True)
        installed = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    found = {normalised(item["name"]): item["version"] for item in installed}
    return {name: version for name, version in found.items() if not FREE.fullmatch(name)}


def lines_of(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Constraints from the versions by package of each Python."""
    lines = []
    for name in sorted(set().union(*resolved.values())):
        by_version: dict[str, list[str]] = {}
        for python, packages in resolved.items():
            if name in packages:
                by_version.setdefault(packages[name], []).append(python)
        for version, pythons in by_version.items():
            marker = " or ".join(f'python_version == "{python}"' for python in pythons)
            everywhere = len(by_version) == 1
            lines.append(f"{name}=={version}" if everywhere else f"{name}=={version} ; {marker}")
    return lines


def main() -> None:
    pythons = sorted(set(versions.ENVIRONMENTS.values()), key=lambda version: int(version.split(".")[1]))
    FILE.write_text(HEAD + "\n".join(lines_of({python: resolve(python) for python in pythons})) + "\n")


if __name__ == "__main__":
    main()
