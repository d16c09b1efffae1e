"""The command group: help of every command, mistakes, warnings."""

from __future__ import annotations

import subprocess
import sys
import warnings

import click
import pytest

from sc_layers import cli
from sc_layers.cli import COMMANDS
from tests.cli.running import assert_mistake, run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Usage: main {command}" in result.output


def test_unknown_command_is_named() -> None:
    assert_mistake(run("trian"), "trian")


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError, PermissionError, ImportError])
def test_what_a_user_can_mend_is_one_line(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise error("first line\n  second line")

    monkeypatch.setattr(cli, "patch", failing, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    assert_mistake(run("patch"), "Error: first line second line")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "patch", failing, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    assert isinstance(run("patch").exception, ZeroDivisionError)


def test_warnings_are_one_line_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def warning() -> None:
        warnings.warn("something\n odd", stacklevel=1)

    monkeypatch.setattr(cli, "patch", warning, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    assert run("patch").stderr == "warning: something odd\n"


def test_help_does_not_wait_for_pytorch() -> None:
    program = (
        "import sys; from sc_layers.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "False"
