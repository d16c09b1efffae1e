"""The command group: help of every command, mistakes, warnings."""

from __future__ import annotations

import errno
import subprocess
import sys
import warnings

import click
import pytest

from sc_layers import cli
from sc_layers.cli import COMMANDS, PURPOSES
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


def test_a_fault_of_ours_is_one_line_and_shows_its_traceback_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(cli, "patch", failing, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    result = run("patch")
    assert result.exit_code == 1
    assert result.output == "Error: ZeroDivisionError: ours; `sc-layers --debug ...` shows where it came from\n"
    assert isinstance(run("--debug", "patch").exception, ZeroDivisionError)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (OSError(28, "No space left on device", "file"), 1, "No space left on device"),
        (MemoryError(), 1, "out of memory, take a smaller --batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "out of memory, take a smaller --batch"),
        (RuntimeError("unsupported memory format"), 1, "Error: RuntimeError: unsupported memory format"),
        (RecursionError("too deep"), 1, "RecursionError: too deep"),
        (ValueError("x" * 10_000_000), 2, "x" * 2000),
    ],
)
def test_any_error_is_one_short_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, message: str
) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli, "patch", failing, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    result = run("patch")
    assert result.exit_code == status
    assert message in result.output
    assert len(result.output) < 2200
    assert result.output.count("\n") == 1


def test_a_pipe_that_is_closed_ends_quietly(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def failing() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")  # as behind `| head`

    monkeypatch.setattr(cli, "patch", failing, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    result = run("patch")
    assert result.exit_code == 1
    assert result.output == ""


def _options(command: click.Command) -> list[click.Parameter]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(option for part in below for option in _options(part))]


def test_no_option_takes_a_number_that_is_not_finite() -> None:
    context = click.Context(cli.main)
    commands = [cli.main.get_command(context, command) for command in COMMANDS]
    options = [option for command in commands if command is not None for option in _options(command)]
    real = [option for option in options if isinstance(option.type, (click.FloatRange, type(click.FLOAT)))]
    assert {"learning_rate", "truncation", "effort", "extent", "step"} <= {option.name for option in real}
    for option in real:
        for text in ("inf", "nan"):
            with pytest.raises(click.BadParameter):
                option.type.convert(text, option, None)


def test_warnings_are_one_line_without_code(monkeypatch: pytest.MonkeyPatch) -> None:
    @click.command()
    def warning() -> None:
        warnings.warn("something\n odd", stacklevel=1)

    monkeypatch.setattr(cli, "patch", warning, raising=False)
    monkeypatch.setitem(sys.modules, "sc_layers.cli.patch", cli)
    assert run("patch").stderr == "warning: something odd\n"


@pytest.mark.parametrize("command", [None, *COMMANDS])
def test_help_does_not_wait_for_pytorch(command: str | None) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    program = (
        f"import sys; from sc_layers.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: print('torch' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.splitlines()[-1] == "False"


def test_commands_are_listed_by_purpose() -> None:
    lines = run("--help").output.splitlines()
    for purpose, commands in PURPOSES.items():
        start = lines.index(f"{purpose}:") + 1
        names = [line.split()[0] for line in lines[start:] if line.startswith("  ") and line[2] != " "]
        assert names[: len(commands)] == list(commands)


def _groups(command: click.Command) -> list[click.Command]:
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [command, *(part for group in below for part in _groups(group))]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_in_whole_sentences(command: str) -> None:
    found = cli.main.get_command(click.Context(cli.main), command)
    assert found is not None
    for part in _groups(found):
        if isinstance(part, click.Group):
            assert "..." not in part.get_help(click.Context(part)).partition("Commands:")[2]
        for option in part.params:
            if isinstance(option, click.Option):
                text = (option.help or "").partition("  [default")[0]
                assert text.endswith("."), f"{option.opts[0]}: {text!r}"
                assert text[0].isupper(), f"{option.opts[0]}: {text!r}"
                assert "None" not in (option.get_help_record(click.Context(part)) or ("", ""))[1], option.opts[0]
