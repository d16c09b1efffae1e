"""The command `sc-layers`; each command lives in the module of its name and is imported when it is asked for."""

from __future__ import annotations

import importlib
import re
import warnings
from typing import TextIO

import click

from .. import __version__

PURPOSES = {
    "Train": {
        "train": "Train a PS-SC GAN, or one of the paper's baselines.",
        "sweep": "Train and measure every run of a grid of settings and seeds.",
        "dataset": "Show what a data set holds, or make a zip of StyleGAN's kind of it.",
    },
    "Look": {
        "explore": "Serve a page with a slider for every code, to see what it does, and where.",
        "traverse": "Draw a labelled sheet and a GIF in which each row sweeps one code.",
        "generate": "Draw pictures of random codes.",
        "encode": "Find the codes of real images.",
        "edit": "Draw pictures with attributes of others, or with codes flipped.",
        "grid2d": "Draw the plane of two codes.",
        "report": "Write one page about a run: what each code does, and how it got there.",
        "directions": "Find directions in a trained network, whose coordinates are then its codes.",
        "label": "Give codes names, which every command shows.",
        "inspect": "Show what a checkpoint holds, without running anything in it.",
    },
    "Measure": {
        "metrics": "Measure a network: TPL, PPL, FID, KID, disentanglement, rotation curve.",
        "select": "Rank the checkpoints of many runs by TPL, without labels.",
        "table": "Show what a sweep found: means over seeds, correlations, plots.",
    },
    "Exchange": {
        "convert": "Turn a checkpoint into another format.",
        "patch": "Bring sc-layers into a StyleGAN2 code base, or take it out again.",
    },
    "Set up": {
        "doctor": "Show versions, which path computes on each device, and what to do about problems.",
        "completion": "Print the script that completes commands and options in a shell.",
    },
}
COMMANDS = [command for commands in PURPOSES.values() for command in commands]

_LONGEST_MESSAGE = 2000  # characters of an error that are shown: some quote what a file holds
_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory")  # PyTorch's words for it


def _in_one_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning without the line of code that it comes from."""
    click.echo(f"warning: {' '.join(str(message).split())}", err=True)


class _LazyGroup(click.Group):
    """Loads a command's module only when the command runs, so that `--help` does not wait for PyTorch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return COMMANDS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f".{cmd_name}", __name__), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, COMMANDS))
        for purpose, commands in PURPOSES.items():
            with formatter.section(purpose):
                formatter.write_dl([(name.ljust(width), text) for name, text in commands.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Turn every error into one line, and warnings into one line each; with `--debug` show where it came from.

        The exit status is 2 for what a user can mend by other input, and 1 for everything else.
        """
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _in_one_line
                return super().invoke(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):  # as behind `| head`
            raise
        except Exception as error:
            if ctx.params.get("debug"):
                raise
            raise _told(error) from error


def _told(error: Exception) -> click.ClickException:
    """The error as a user is told it."""
    text = " ".join(str(error)[:_LONGEST_MESSAGE].split()) or type(error).__name__
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(text)):
        return click.ClickException(f"out of memory, take a smaller --batch, --resolution or list of seeds: {text}")
    if isinstance(error, (ValueError, TypeError, FileNotFoundError, NotADirectoryError, PermissionError, ImportError)):
        return click.UsageError(text, ctx=None)
    if isinstance(error, OSError):
        return click.ClickException(text)
    return click.ClickException(f"{type(error).__name__}: {text}; `sc-layers --debug ...` shows where it came from")


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="sc-layers")
@click.option("--debug", is_flag=True, help="Show where in the program an error came from.")
def main(debug: bool) -> None:
    """Interpretable, spatially constricted codes for StyleGAN2-style generators."""
