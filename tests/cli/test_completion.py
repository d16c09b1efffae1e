"""`sc-layers completion`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import assert_mistake, run

# The command as a program on the PATH, run by the Python and the package that are tested.
PROGRAM = """#!/bin/sh
exec "{python}" -m sc_layers "$@"
"""


@pytest.fixture
def python_program(tmp_path: Path) -> Path:
    """A folder with `sc-layers` in it."""
    program = tmp_path / "sc-layers"
    program.write_text(PROGRAM.format(python=sys.executable))
    program.chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_asks_our_command(shell: str) -> None:
    script = run("completion", shell).output
    assert f"_SC_LAYERS_COMPLETE={shell}_complete" in script


def test_another_shell_is_refused() -> None:
    assert_mistake(run("completion", "tcsh"), "'tcsh' is not one of 'bash', 'zsh', 'fish'")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sc-layers tra", {"train", "traverse"}),
        ("sc-layers doctor --bu", {"--build"}),
        ("sc-layers completion z", {"zsh"}),
    ],
)
def test_bash_completes(words: str, expected: set[str], python_program: Path) -> None:
    program = f"""
eval "$(sc-layers completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMPREPLY=()
_sc_layers_completion sc-layers
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    environment = {**os.environ, "PATH": f"{python_program}{os.pathsep}{os.environ['PATH']}"}
    bash = shutil.which("bash") or "bash"
    result = subprocess.run([bash, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert set(result.stdout.split()) == expected
